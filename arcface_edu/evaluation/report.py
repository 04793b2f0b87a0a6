"""Findings as text to print, as files for programs and as one HTML page."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from arcface_edu.evaluation.finding import COLUMNS, Finding
from arcface_edu.evaluation.leaderboard import HEAD, Leaderboard, build_leaderboard
from arcface_edu.io import write_json_atomically, write_text_atomically


def text_of(finding: Finding) -> str:
    """Return the lines to print."""
    rows = [COLUMNS, *finding.rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([f"\n{finding.name}: {finding.about}", *lines, *(f"note: {note}" for note in finding.notes)])


def compare(findings: Sequence[Finding], trained_on: str, network: str) -> Leaderboard:
    """Return the table of published networks with the row that the findings fill."""
    accuracies = {finding.name: finding.numbers["accuracy"] for finding in findings if finding.kind == "pairs"}
    ijbc: dict[float, float] = {}
    for finding in findings:
        if finding.kind == "ijb" and finding.name.startswith("IJBC"):
            ijbc = {float(far): point["tar"] for far, point in finding.numbers["tar_at_far"].items()}
    return build_leaderboard(trained_on, network, accuracies, ijbc)


def write_files(
    folder: Path,
    findings: Sequence[Finding],
    facts: Mapping[str, str],
    leaderboard: Leaderboard,
    json_path: Path | None = None,
) -> Path:
    """Write results.json and a PNG for each figure into `folder`, and return where the JSON is.

    Args:
        facts: what is said of the network, for the JSON.
        json_path: the JSON goes there instead.
    """
    from arcface_edu.figures.style import save

    for finding in findings:
        for name, figure in finding.figures.items():
            save(figure, folder / f"{name}_{finding.name.replace(' ', '_')}.png")
    json_path = json_path or folder / "results.json"
    results = {finding.name: {"kind": finding.kind, **finding.numbers} for finding in findings}
    write_json_atomically(json_path, {**facts, "table": leaderboard.as_dicts(), "results": results}, allow_nan=False)
    return json_path


def write_page(
    path: Path, title: str, facts: Mapping[str, str], leaderboard: Leaderboard, findings: Sequence[Finding]
) -> None:
    """Write all of it as one self-contained HTML page."""
    from arcface_edu.figures import page

    parts = [
        page.heading("Among published networks"),
        page.paragraph("IJB-C: TAR in % at the FAR in brackets; the others: accuracy in %."),
        page.table(HEAD, leaderboard.rows, ours=(leaderboard.ours,)),
        page.notes([f"No number for {reason}." for reason in leaderboard.reasons]),
    ]
    for finding in findings:
        parts += [
            page.heading(finding.name),
            page.paragraph(finding.about),
            page.table(COLUMNS, finding.rows),
            page.notes(finding.notes),
            page.figures({f"{finding.name}: {name.replace('_', ' ')}": fig for name, fig in finding.figures.items()}),
        ]
    parts += [
        page.heading("How it was measured"),
        page.table(("", ""), list(facts.items())),
        page.heading("How to read it"),
        *map(page.paragraph, GLOSSARY),
    ]
    lead = "; ".join(f"{finding.name}: {finding.headline}" for finding in findings)
    write_text_atomically(path, page.page(title, lead, *parts))


GLOSSARY = (
    "The network turns a face into a vector, its embedding. The angle between two embeddings says how alike two faces "
    "look to it: small for one person, near 90° for strangers. A threshold on the angle decides.",
    "TAR, true accept rate: the share of same-person pairs that are accepted. FAR, false accept rate: the share of "
    "pairs of two people that are accepted. A lower FAR asks for a stricter threshold and costs TAR.",
    "Accuracy is that of LFW's protocol: the list is cut into ten folds, and each is judged with the threshold that is "
    "best on the other nine; ± is the standard deviation over the folds. VAL is the TAR in a fold, at the threshold "
    "that has a FAR of 1e-3 in the others.",
    "A threshold stands in three units that mean the same. A pair is accepted when the cosine of the angle is above; "
    "or the angle in degrees, or the squared distance at unit length, L2² = 2 - 2 cos, below.",
    "An interval holds the middle 95 % of what comes out when pairs, or people, are drawn from these again and again "
    "with replacement: how far the number could have come out otherwise.",
)
