"""The hash kept with a notebook changes with what its outputs follow from, and with nothing else."""

import pytest
from used_code import notebook_hash, reached

PACKAGE = {
    "__init__.py": "from arcface_edu.heads import margin\n",
    "heads/__init__.py": "from arcface_edu.heads.margins import margin\n",
    "heads/margins.py": '''
        """Margins."""
        import math
        from arcface_edu.angles import to_degrees as degrees

        SCALE = 64
        TABLE = {}
        TABLE["arcface"] = 0.5

        def margin(angle: float) -> float:
            """Return the angle with its margin."""
            return SCALE * clipped(angle)  # why

        def clipped(angle):
            return min(angle, math.pi)

        def unrelated(angle):
            return degrees(angle)
    ''',
    "angles.py": '''
        def to_degrees(angle):
            return angle * 57.3
    ''',
    "train.py": '''
        from arcface_edu import angles
        from arcface_edu.config import load_config

        def main():
            steps(load_config("base"))

        def steps(config):
            from arcface_edu.heads.margins import TABLE
            return angles.to_degrees(TABLE[config])

        def never(config):
            return 0

        if __name__ == "__main__":
            main()
    ''',
    "config.py": '''
        import importlib

        def load_config(name):
            return name

        def by_name(command):
            return importlib.import_module(f"arcface_edu.{command}")
    ''',
    "configs/base.py": "lr = 0.1\n",
    "configs/r100.py": "lr = 0.2\n",
}  # fmt: skip


def lines(text):
    """A text without the indent that it has in this file."""
    return "\n".join(line[8:] if line.startswith("        ") else line.lstrip() for line in text.splitlines())


@pytest.fixture
def root(tmp_path):
    for name, text in PACKAGE.items():
        path = tmp_path / "arcface_edu" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(lines(text))
    return tmp_path


def change(root, name, old, new):
    path = root / "arcface_edu" / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def notices(root, cell, name, old, new):
    """Whether the hash of a notebook of that cell is another one after a change of the package."""
    before = notebook_hash([cell], root)
    change(root, name, old, new)
    return notebook_hash([cell], root) != before


MARGIN = "from arcface_edu import margin\nmargin(1)"
TRAIN = "!python -m arcface_edu.train"


@pytest.mark.parametrize(
    ("cell", "name", "old", "new"),
    [
        (MARGIN, "heads/margins.py", "SCALE * clipped", "2 * clipped"),
        (MARGIN, "heads/margins.py", "min(angle", "max(angle"),  # what it calls
        (MARGIN, "heads/margins.py", "SCALE = 64", "SCALE = 32"),  # what it reads
        (MARGIN, "heads/margins.py", "def clipped", "def cut"),
        ("import arcface_edu\narcface_edu.margin(1)", "heads/margins.py", "min(angle", "max(angle"),
        ("import arcface_edu.heads as h\nh.margin(1)", "heads/margins.py", "min(angle", "max(angle"),
        ("from arcface_edu.heads import *\nmargin(1)", "heads/margins.py", "min(angle", "max(angle"),
        (
            "from arcface_edu.heads import margins\nshow(margins)",
            "angles.py",
            "57.3",
            "57",
        ),  # anything in it may be used
        ("def f():\n    from arcface_edu.angles import to_degrees\n    return to_degrees", "angles.py", "57.3", "57"),
        (TRAIN, "angles.py", "57.3", "57"),
        (TRAIN, "heads/margins.py", '["arcface"] = 0.5', '["arcface"] = 0.4'),  # a change of what it imports
        (TRAIN, "config.py", "return name", "return name.lower()"),
        (TRAIN, "configs/base.py", "0.1", "0.3"),
        ('run("arcface_edu.train", "r100")', "configs/r100.py", "0.2", "0.3"),
        ('run("arcface_edu.train", "r100")', "train.py", "TABLE[config]", "TABLE[0]"),
        ("from arcface_edu.config import by_name\nby_name('x')", "angles.py", "57.3", "57"),
        (f"import inspect\n{MARGIN}\ninspect.getsource(margin)", "heads/margins.py", "with its", "and its"),
    ],
)
def test_what_is_used_changes_the_hash(root, cell, name, old, new):
    assert notices(root, cell, name, old, new)


@pytest.mark.parametrize(
    ("cell", "name", "old", "new"),
    [
        (MARGIN, "heads/margins.py", "def unrelated", "def renamed"),
        (MARGIN, "heads/margins.py", "with its", "and its"),  # a docstring
        (MARGIN, "heads/margins.py", "# why", "# because"),
        (MARGIN, "heads/margins.py", "angle: float) -> float", "angle)"),
        (MARGIN, "heads/margins.py", '"""Margins."""', '"""All margins."""\n\n'),
        (MARGIN, "angles.py", "57.3", "57"),
        (MARGIN, "configs/r100.py", "0.2", "0.3"),
        (TRAIN, "train.py", "def never(config):\n    return 0", "def never(config):\n    return 1"),
        (TRAIN, "heads/margins.py", "min(angle", "max(angle"),
        ("to_degrees = 3\nprint(to_degrees)", "angles.py", "57.3", "57"),
    ],
)
def test_what_is_not_used_does_not(root, cell, name, old, new):
    assert not notices(root, cell, name, old, new)


def test_code_in_cells_counts_and_comments_do_not(root):
    first = notebook_hash([MARGIN, "2 * 3"], root)
    assert notebook_hash([MARGIN + "  # two", "2*3"], root) == first
    assert notebook_hash([MARGIN, "2 * 4"], root) != first
    assert notebook_hash([MARGIN + "\n2 * 3"], root) != first
    assert notebook_hash(["!ls", MARGIN, "2 * 3"], root) != first
    assert notebook_hash(["%%bash\nls ]["], root) != notebook_hash(["%%bash\nls [["], root)


def test_a_function_that_changes_while_the_process_lives_is_read_anew(root):
    before = reached([MARGIN], root)
    change(root, "heads/margins.py", "SCALE * clipped", "2 * clipped")
    assert len(reached([MARGIN], root)) == len(before) - 1  # SCALE is used no more
