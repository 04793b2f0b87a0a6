"""What a data set says about a network, by the protocol of its kind: numbers, their scatter, pictures.

for finding in judge_all(model, pairs=[...], ijb=[...], search=(gallery, probes)):
    print(text_of(finding))                                     of evaluation/report.py
"""

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor, nn

from arcface_edu.data.bins import check_sizes, read_pairs
from arcface_edu.data.folder import held_out_pairs
from arcface_edu.data.images import decode, fit
from arcface_edu.errors import DataError
from arcface_edu.evaluation.confidence import Interval, accuracy_interval, tar_intervals
from arcface_edu.evaluation.embedding import embed_images, embed_people
from arcface_edu.evaluation.finding import Finding, PairSet, Row, firm_point, for_program, span, spread, units
from arcface_edu.evaluation.group_file import read_groups
from arcface_edu.evaluation.groups import judge_groups
from arcface_edu.evaluation.identification import identify
from arcface_edu.evaluation.ijb import image_weights, pool_templates, score_pairs, subjects_of
from arcface_edu.evaluation.ijb_files import Crops, Protocol, embed_crops, read_protocol
from arcface_edu.evaluation.quality import best_reject, error_versus_reject, pair_quality, sharpness
from arcface_edu.evaluation.roc import OperatingPoint, Threshold, in_three_units, operating_points, roc, thin
from arcface_edu.evaluation.verification import REPORTED_FARS, hardest_pairs, pair_cosines, verify_pairs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HARDEST = 8  # pairs of either kind in the pictures


def pair_sets(
    named: Sequence[Path], data: Path | None, config: dict[str, Any], only: Container[str] | None = None
) -> Iterator[PairSet]:
    """Yield the pair sets of the files and folders named, or else those beside a run's data.

    Args:
        named: .bin files, or folders of such.
        data: folder of the run's training data; None = there is none.
        config: of the run, which says how many of a folder of photographs it held out; or {}.
        only: names of the run's people in that folder; None = all.

    Raises:
        DataError: A folder holds no pairs, or two files have one name.
    """
    files = [
        file
        for place in named or ([data] if data else [])
        for file in (sorted(place.glob("*.bin")) if place.is_dir() else [place])
    ]
    names = [file.stem for file in files]
    if twice := {name for name in names if names.count(name) > 1}:
        raise DataError(f"two files of pairs are called {min(twice)}: rename one, their results would be mixed up.")
    if named and not files:
        raise DataError(f"there are no .bin files of pairs in {', '.join(map(str, named))}: name others with --pairs.")
    yield from ((file.stem, *read_pairs(file)) for file in files)
    if not files and data and config.get("hold_out"):
        how = config["hold_out"], config.get("draw_pairs"), config.get("seed", 0)
        yield "held_out", *held_out_pairs(data, *how, only)


def judge_all(
    model: nn.Module,
    pairs: Iterable[PairSet] = (),
    ijb: Iterable[Path] = (),
    search: tuple[Path, Path] | None = None,
    switches: str = "N1D1F1",
    batch_size: int = 128,
    workers: int = 0,
    reject: bool = False,
    groups: tuple[Path, Path | None] | None = None,
) -> Iterator[Finding]:
    """Yield a finding for each data set, as soon as it is known.

    Args:
        pairs: as `pair_sets` yields them.
        ijb: IJB-B or IJB-C folders.
        search: the folders of a gallery and of probes.
        switches: of the IJB protocol.
        workers: processes that read and align IJB images.
        reject: of pairs, also what rejecting the worst images would bring.
        groups: the CSV of groups of the one pair set, and the list that it was made of; see `read_groups`.

    Raises:
        DataError: A data set cannot be read or judged.
    """
    for name, images, is_same in pairs:
        check_sizes(images, name)
        grouped = read_groups(groups[0], len(images), groups[1]) if groups else None
        embeddings = embed_images(model, images, batch_size=batch_size, progress=f"embedding {name}")
        yield judge_pairs(name, embeddings, images, is_same, reject=reject)
        if grouped:
            yield from judge_groups(name, pair_cosines(embeddings), is_same, grouped)
    for folder in ijb:
        protocol = read_protocol(folder)
        features = embed_crops(model, protocol, "F1" in switches, batch_size, workers)
        yield judge_ijb(protocol, features, switches)
    if search:
        yield judge_search(*embed_people(model, *search, batch_size))


def judge_pairs(
    name: str,
    embeddings: Tensor | np.ndarray,
    images: Sequence[bytes],
    is_same: np.ndarray,
    folds: int = 10,
    reject: bool = False,
) -> Finding:
    """Apply the ten-fold protocol to a pair set: (2N, D) embeddings of 2N encoded images, is_same (N,)."""
    try:
        result = verify_pairs(embeddings, is_same, folds)
    except DataError as error:
        raise DataError(f"{name}: {error}") from None
    cosines, points = result["cosines"], operating_points(result["cosines"], is_same, REPORTED_FARS)
    accuracy = accuracy_interval(embeddings, is_same, folds)
    intervals = tar_intervals(cosines, is_same, REPORTED_FARS)
    threshold, over, reached = result["threshold"], f"{folds} folds", f"FAR in them {result['far']:.1e}"
    rows: list[Row] = [
        ("accuracy", spread(result["accuracy"], result["accuracy_std"]), span(accuracy), units(threshold), over),
        ("VAL at FAR 1e-3", spread(result["val"], result["val_std"]), "", "", f"{over}; {reached}"),
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

    def face(pair: int, side: int) -> Tensor:
        return fit(decode(images[2 * pair + side], f"{name}, image {2 * pair + side}"))

    kept = ("accuracy", "accuracy_std", "val", "val_std", "far", "threshold", "pairs", "same_pairs", "different_pairs")
    numbers: dict[str, Any] = {key: value for key, value in result.items() if key in kept} | {
        "accuracy_interval": accuracy, "folds": folds, "fold_thresholds_squared_l2": result["thresholds"].tolist(),
        "tar_at_far": for_program(points, intervals), "bootstrap": "over pairs",
    }  # fmt: skip
    figures = draw_verification(cosines, is_same, threshold, face)
    if reject:
        from arcface_edu.figures.runs import plot_reject

        faces = [face(pair, side) for pair in range(len(is_same)) for side in (0, 1)]
        far = firm_point(points)
        curves = reject_curves(np.asarray(embeddings), faces, cosines, is_same, points[far]["threshold"]["cosine"])
        figures["reject"] = plot_reject(curves, far)
        numbers["lost_after_rejecting"] = {kind: lost[[0, 10, 20, 50]].tolist() for kind, lost in curves.items()}
        rows += [
            (
                f"lost after 20 % by {kind}",
                f"{lost[20]:.2%}",
                "",
                "",
                f"of same-person pairs, FAR {far:.0e}; {lost[0]:.2%} before",
            )
            for kind, lost in curves.items()
        ]
    return Finding(name, "pairs", about, f"accuracy {rows[0][1]}", rows, notes, numbers, figures)


def reject_curves(
    embeddings: np.ndarray, faces: Sequence[Tensor], cosines: np.ndarray, is_same: np.ndarray, threshold: float
) -> dict[str, np.ndarray]:
    """Return the error-versus-reject curve of each measure of quality, and the best possible one."""
    measures = {"length of the embedding": np.linalg.norm(embeddings, axis=1), "sharpness": sharpness(faces)}
    same = cosines[is_same]
    curves = {
        kind: error_versus_reject(same, pair_quality(quality)[is_same], threshold) for kind, quality in measures.items()
    }
    return curves | {"best possible": best_reject((same < threshold).mean())}


def judge_ijb(protocol: Protocol, features: np.ndarray, switches: str) -> Finding:
    """Apply IJB's template protocol to features (N, D), as `embed_crops` returns them with the F switch."""
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

    def face(pair: int, side: int) -> Tensor:
        template = (protocol.first, protocol.second)[side][pair]
        return Crops(protocol).face(first_image[np.searchsorted(ids, template)])

    numbers = {
        "switches": switches, "images": len(protocol.images), "templates": len(ids), "pairs": len(scores),
        "same_pairs": same, "tar_at_far": for_program(points, intervals), "bootstrap": "over people",
    }  # fmt: skip
    rows, headline = _tar_rows(points, intervals), f"TAR {points[1e-4]['tar']:.2%} at FAR 1e-04"
    figures = draw_verification(scores, protocol.is_same, threshold, face)
    return Finding(f"{protocol.name} {switches}", "ijb", about, headline, rows, [], numbers, figures)


def judge_search(
    gallery: Tensor | np.ndarray, gallery_labels: np.ndarray, probes: Tensor | np.ndarray, probe_labels: np.ndarray
) -> Finding:
    """Apply the identification protocol, with arrays as for `identify`."""
    from arcface_edu.figures.runs import plot_cmc, plot_open_set

    result = identify(gallery, gallery_labels, probes, probe_labels)
    ranks = [rank for rank in (5, 10) if rank <= len(result["cmc"])]
    rows: list[Row] = [("rank 1", f"{result['rank1']:.2%}", "", "", "the right person comes first")]
    rows += [(f"among the first {rank}", f"{result['cmc'][rank - 1]:.2%}", "", "", "") for rank in ranks]
    strangers = result["strangers"]
    for far, rate in result["dir_at_far"].items():
        few = f"few: {strangers:,} strangers; {10 / far:,.0f} make it firm" if strangers * far < 10 else ""
        threshold = units(in_three_units(result["thresholds"][far]))
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
    kept = ("rank1", "people", "known", "strangers")
    numbers: dict[str, Any] = {key: value for key, value in result.items() if key in kept} | {
        "cmc": result["cmc"].tolist(),
        "dir_at_far": {f"{far:g}": rate for far, rate in result["dir_at_far"].items()},
        "thresholds_cosine": {f"{far:g}": cosine for far, cosine in result["thresholds"].items()},
    }
    return Finding("identification", "search", about, f"rank 1 {rows[0][1]}", rows, notes, numbers, figures)


def draw_verification(
    cosines: np.ndarray, is_same: np.ndarray, threshold: Threshold, face: Callable[[int, int], Tensor]
) -> dict[str, "Figure"]:
    """Draw the ROC, the angles of pairs, same-person pairs furthest apart, and strangers closest together.

    Args:
        cosines, is_same: (N,).
        face: pair, side -> uint8 (3, H, W).
    """
    from arcface_edu.figures.angles import plot_pair_angles
    from arcface_edu.figures.faces import plot_pairs
    from arcface_edu.figures.runs import plot_roc

    pictures = {
        "roc": plot_roc({"the network": thin(*roc(cosines, is_same)[:2])}),
        "pair_angles": plot_pair_angles(cosines, is_same, threshold["cosine"]),
    }
    angles, limit = np.degrees(np.arccos(cosines.clip(-1, 1))), threshold["degrees"]
    hardest_same, hardest_different = hardest_pairs(-angles, is_same, HARDEST)
    for name, kind, pairs, of_kind, wrong in (
        ("false_rejects", "same-person pairs lie beyond", hardest_same, is_same, is_same & (angles >= limit)),
        ("false_accepts", "pairs of two people lie within", hardest_different, ~is_same, ~is_same & (angles < limit)),
    ):
        captions = [f"{angles[pair]:.0f}° {'wrong' if wrong[pair] else 'right'}" for pair in pairs]
        title = f"{wrong.sum():,} of {of_kind.sum():,} {kind} the threshold of {limit:.1f}°; here are the hardest"
        first, second = ([face(pair, side) for pair in pairs] for side in (0, 1))
        pictures[name] = plot_pairs(first, second, captions, title, columns=2)
    return pictures


def explain(switches: str) -> str:
    """Return what the IJB switches mean."""
    return ", ".join(
        (
            "embeddings keep their length" if "N1" in switches else "embeddings have unit length",
            "weighted by the detector's score" if "D1" in switches else "not weighted by the detector's score",
            "image and mirror added" if "F1" in switches else "no mirror",
        )
    )


def _tar_rows(points: dict[float, OperatingPoint], intervals: dict[float, Interval]) -> list[Row]:
    return [
        (
            f"TAR at FAR {far:.0e}",
            f"{point['tar']:.2%}",
            span(intervals[far]),
            units(point["threshold"]),
            point["few"],
        )
        for far, point in points.items()
    ]
