"""What a data set says about a network, in words, numbers and pictures; and all of that as files."""

import json
from typing import NamedTuple

import numpy as np

from arcface_edu.data.alignment.align import align
from arcface_edu.data.folder import read_photo
from arcface_edu.data.images import decode, fit
from arcface_edu.data.recordio import written_beside
from arcface_edu.errors import DataError
from arcface_edu.evaluation.confidence import accuracy_interval, tar_intervals
from arcface_edu.evaluation.identification import identify
from arcface_edu.evaluation.ijb import image_weights, pool_templates, score_pairs, subjects_of
from arcface_edu.evaluation.roc import in_three_units, operating_points, roc, thin
from arcface_edu.evaluation.verification import REPORTED_FARS, hardest_pairs, verify_pairs
from arcface_edu.figures import page
from arcface_edu.figures.angles import plot_pair_angles
from arcface_edu.figures.faces import plot_pairs
from arcface_edu.figures.runs import plot_cmc, plot_open_set, plot_roc
from arcface_edu.figures.style import save

HARDEST = 8  # pairs of either kind in the pictures
COLUMNS = ("", "", "95 % interval", "threshold: cosine, °, L2²", "")  # of a finding's rows


class Finding(NamedTuple):
    """What one data set says.   numbers: the rows, for a program."""

    name: str
    kind: str  # "pairs", "ijb" or "search"
    about: str
    headline: str  # its one number
    rows: list  # of texts, as many as COLUMNS
    notes: list
    numbers: dict
    figures: dict  # name of the file -> Figure


def judge_pairs(name, embeddings, images, is_same, folds=10):
    """The ten-fold protocol on a pair set.   embeddings: (2N, D).   images: 2N encoded images.   returns: Finding."""
    try:
        result = verify_pairs(embeddings, is_same, folds)
    except DataError as error:
        raise DataError(f"{name}: {error}") from None
    cosines, points = result["cosines"], operating_points(result["cosines"], is_same, REPORTED_FARS)
    accuracy = accuracy_interval(embeddings, is_same, folds)
    intervals = tar_intervals(cosines, is_same, REPORTED_FARS)
    threshold, over, reached = result["threshold"], f"{folds} folds", f"FAR in them {result['far']:.1e}"
    rows = [
        ("accuracy", _spread(result["accuracy"], result["accuracy_std"]), _span(accuracy), _units(threshold), over),
        ("VAL at FAR 1e-3", _spread(result["val"], result["val_std"]), "", "", f"{over}; {reached}"),
        *_tar_rows(points, intervals),
    ]
    notes = []
    if len(is_same) % folds:
        notes.append(f"{len(is_same):,} pairs do not cut evenly into {folds} folds: some hold one more than others.")
    if result["one_kind_folds"]:
        notes.append(f"{result['one_kind_folds']} folds hold one kind of pair only: mix the order of the list.")
    about = (
        f"{result['pairs']:,} pairs, {result['same_pairs']:,} of one person and {result['different_pairs']:,} of two. "
        f"Intervals are 95 % by bootstrap over pairs; pairs share people, so they are rather too narrow."
    )
    angles = np.degrees(np.arccos(cosines))

    def face(pair, side):
        return fit(decode(images[2 * pair + side], f"{name}, image {2 * pair + side}"))

    figures = {
        "roc": plot_roc({"the network": thin(*roc(cosines, is_same)[:2])}),
        "pair_angles": plot_pair_angles(cosines, is_same, threshold["cosine"]),
        **draw_hardest(angles, is_same, threshold["degrees"], face),
    }
    numbers = {
        **{key: result[key] for key in ("accuracy", "accuracy_std", "val", "val_std", "far", "threshold")},
        **{key: result[key] for key in ("pairs", "same_pairs", "different_pairs")},
        "accuracy_interval": accuracy, "folds": folds, "fold_thresholds_squared_l2": result["thresholds"].tolist(),
        "tar_at_far": _for_program(points, intervals), "bootstrap": "over pairs",
    }  # fmt: skip
    return Finding(name, "pairs", about, f"accuracy {rows[0][1]}", rows, notes, numbers, figures)


def judge_ijb(protocol, features, switches):
    """IJB's template protocol.   features: (N, D), as `embed_crops` made them with the F switch.   returns: Finding."""
    try:
        weights = image_weights(features, protocol.detector, switches)
        pooled, ids = pool_templates(features, protocol.templates, protocol.media, weights)
        scores = score_pairs(pooled, ids, protocol.first, protocol.second)
        points = operating_points(scores, protocol.is_same)
    except DataError as error:
        raise DataError(f"{protocol.name}: {error}") from None
    subjects = subjects_of(ids, protocol.first, protocol.second, protocol.is_same)
    intervals = tar_intervals(scores, protocol.is_same, tuple(points), subjects)
    same = int(protocol.is_same.sum())
    about = (
        f"{len(protocol.images):,} images in {len(ids):,} templates; {len(scores):,} pairs of templates, {same:,} of "
        f"one person. Switches {switches}: {explain(switches)}. Intervals are 95 % by bootstrap over people, as far as "
        f"the pairs tell who is who."
    )
    threshold = next((point["threshold"] for point in points.values() if not point["few"]), points[1e-1]["threshold"])
    first_image = np.unique(protocol.templates, return_index=True)[1]  # of each template, to show

    def face(pair, side):
        image = first_image[np.searchsorted(ids, (protocol.first, protocol.second)[side][pair])]
        path = protocol.folder / "loose_crop" / str(protocol.images[image])
        return align(decode(read_photo(path), path), protocol.points[image])

    angles = np.degrees(np.arccos(scores.clip(-1, 1)))
    figures = {
        "roc": plot_roc({"the network": thin(*roc(scores, protocol.is_same)[:2])}),
        "pair_angles": plot_pair_angles(scores, protocol.is_same, threshold["cosine"]),
        **draw_hardest(angles, protocol.is_same, threshold["degrees"], face),
    }
    numbers = {
        "switches": switches, "images": len(protocol.images), "templates": len(ids), "pairs": len(scores),
        "same_pairs": same, "tar_at_far": _for_program(points, intervals), "bootstrap": "over people",
    }  # fmt: skip
    rows, headline = _tar_rows(points, intervals), f"TAR {points[1e-4]['tar']:.2%} at FAR 1e-04"
    return Finding(f"{protocol.name} {switches}", "ijb", about, headline, rows, [], numbers, figures)


def judge_search(gallery, gallery_labels, probes, probe_labels):
    """Identification of probes in a gallery, arrays as `identify` takes them.   returns: Finding."""
    result = identify(gallery, gallery_labels, probes, probe_labels)
    ranks = [rank for rank in (1, 5, 10) if rank <= len(result["cmc"])]
    rows = [(f"among the first {rank}", f"{result['cmc'][rank - 1]:.2%}", "", "", "") for rank in ranks]
    rows[0] = ("rank 1", f"{result['rank1']:.2%}", "", "", "the right person comes first")
    strangers = result["strangers"]
    for far, rate in result["dir_at_far"].items():
        few = f"few: {strangers:,} strangers; {10 / far:,.0f} make it firm" if strangers * far < 10 else ""
        threshold = _units(in_three_units(result["thresholds"][far]))
        rows.append((f"DIR at FAR {far:.0e}", f"{rate:.2%}", "", threshold, few))
    about = (
        f"{len(gallery):,} images of {result['people']:,} people in the gallery, searched for {result['known']:,} "
        f"images of people in it and {strangers:,} of strangers. DIR is the share of known people that come first and "
        f"above the threshold which takes that share (FAR) of the strangers for somebody."
    )
    figures = {"cmc": plot_cmc({"search": result["cmc"]})}
    if strangers > 1:
        figures["open_set"] = plot_open_set(result["far"], result["dir"])
    notes = [] if strangers else ["No probe is a stranger to the gallery, so there is no open-set result."]
    counts = {key: result[key] for key in ("rank1", "people", "known", "strangers")}
    numbers = counts | {
        "cmc": result["cmc"].tolist(),
        "dir_at_far": {f"{far:g}": rate for far, rate in result["dir_at_far"].items()},
        "thresholds_cosine": {f"{far:g}": cosine for far, cosine in result["thresholds"].items()},
    }
    return Finding("identification", "search", about, f"rank 1 {rows[0][1]}", rows, notes, numbers, figures)


def draw_hardest(angles, is_same, threshold, face):
    """Two pictures: same-person pairs furthest apart, and strangers closest together.

    angles: (N,) degrees.   threshold: degrees.   face: (pair, side) -> uint8 (3, H, W).   returns: dict name -> Figure.
    """
    pictures, chosen = {}, hardest_pairs(-angles, is_same, HARDEST)
    for name, kind, pairs, wrong in (
        ("false_rejects", "same-person pairs lie beyond", chosen[0], is_same & (angles >= threshold)),
        ("false_accepts", "pairs of two people lie within", chosen[1], ~is_same & (angles < threshold)),
    ):
        total = int(is_same.sum()) if name == "false_rejects" else int((~is_same).sum())
        captions = [f"{angles[pair]:.0f}° {'wrong' if wrong[pair] else 'right'}" for pair in pairs]
        title = f"{int(wrong.sum()):,} of {total:,} {kind} the threshold of {threshold:.1f}°; here are the hardest"
        faces = [[face(pair, side) for pair in pairs] for side in (0, 1)]
        pictures[name] = plot_pairs(*faces, captions, title, columns=2)
    return pictures


def explain(switches):
    """The IJB switches in words."""
    return ", ".join(
        (
            "embeddings keep their length" if "N1" in switches else "embeddings have unit length",
            "weighted by the detector's score" if "D1" in switches else "not weighted by the detector's score",
            "image and mirror added" if "F1" in switches else "no mirror",
        )
    )


def text_of(finding):
    """The lines to print."""
    rows = [COLUMNS, *finding.rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([f"\n{finding.name}: {finding.about}", *lines, *(f"note: {note}" for note in finding.notes)])


def write_files(folder, findings, facts, table, json_path=None):
    """results.json and a PNG per figure into `folder`.   facts, table: what is said of the network, for the JSON."""
    for finding in findings:
        for name, figure in finding.figures.items():
            save(figure, folder / f"{name}_{finding.name.replace(' ', '_')}.png")
    results = {**facts, "table": table, "results": {f.name: {"kind": f.kind, **f.numbers} for f in findings}}
    with written_beside(json_path or folder / "results.json") as file:
        file.write(json.dumps(results, indent=1, allow_nan=False).encode())


def write_page(path, title, facts, table, findings):
    """All of it as one HTML page.   facts: dict of texts.   table: (head, rows, number of ours, reasons for dashes)."""
    head, rows, ours, reasons = table
    parts = [
        page.heading("Among published networks"),
        page.paragraph("IJB-C: TAR in % at the FAR in brackets; the others: accuracy in %."),
        page.table(head, rows, ours=(ours,)),
        page.notes([f"No number for {reason}." for reason in reasons]),
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
    with written_beside(path) as file:
        file.write(page.page(title, lead, *parts).encode())


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


def _tar_rows(points, intervals):
    return [
        (
            f"TAR at FAR {far:.0e}",
            f"{point['tar']:.2%}",
            _span(intervals[far]),
            _units(point["threshold"]),
            point["few"],
        )
        for far, point in points.items()
    ]


def _spread(mean, std):
    return f"{mean:.2%} ± {std:.2%}"


def _span(interval):
    return f"{interval[0]:.2%} to {interval[1]:.2%}"


def _units(threshold):
    return f"{threshold['cosine']:.3f}  {threshold['degrees']:.1f}°  {threshold['squared_l2']:.3f}"


def _for_program(points, intervals):
    return {f"{far:g}": point | {"interval": intervals[far]} for far, point in points.items()}
