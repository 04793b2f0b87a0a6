"""python -m arcface_edu.labs: see the package's docstring."""

from arcface_edu.labs import main

main()
