"""python -m arcface_edu COMMAND ... : the same as arcface-edu COMMAND ..."""

from arcface_edu.cli import main

main()
