"""The row by which face networks are compared, between the published ones."""

HEAD = ("Datasets", "backbone", "IJBC(1e-05)", "IJBC(1e-04)", "agedb30", "cfp_fp", "lfw")
PUBLISHED = (
    ("MS1MV3", "r50", 94.79, 96.46, 98.35, 98.96, 99.83),
    ("MS1MV3", "r100", 95.31, 96.81, 98.48, 99.06, 99.85),
    ("MS1MV3 (arcface_torch README)", "r50", 94.47, 96.37, None, None, None),
    ("MS1MV3 (arcface_torch README)", "r100", 95.02, 96.85, None, None, None),
)
WHERE = {"agedb30": "agedb_30", "cfp_fp": "cfp_fp", "lfw": "lfw"}  # column -> name of the .bin


def benchmark(trained_on, network, accuracies, ijbc):
    """Our row among the published ones.

    accuracies: dict name of a pair set -> accuracy in [0, 1].   ijbc: dict FAR -> TAR of IJB-C, or {}.
    returns: rows of texts, the number of ours, and a sentence for each dash in it.
    """
    ours, reasons = [trained_on, network], []
    ours += [100 * ijbc[far] if ijbc else None for far in (1e-5, 1e-4)]
    if not ijbc:
        reasons.append("IJBC: no IJB-C folder was named (--ijb)")
    for column, name in WHERE.items():
        ours.append(100 * accuracies[name] if name in accuracies else None)
        if name not in accuracies:
            reasons.append(f"{column}: no {name}.bin was found or named (--pairs)")
    rows = [[_text(cell) for cell in row] for row in (*PUBLISHED[:2], ours, *PUBLISHED[2:])]
    return rows, 2, reasons


def markdown(head, rows):
    """A table of texts as Markdown, its columns aligned."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]

    def line(cells):
        return f"| {' | '.join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))} |"

    return "\n".join([line(head), line(["-" * width for width in widths]), *map(line, rows)])


def _text(cell):
    return "-" if cell is None else cell if isinstance(cell, str) else f"{cell:.2f}"
