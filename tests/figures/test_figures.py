"""Figures say what the data says, fit on their page, and leave nothing behind."""

import itertools

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from arcface_edu.errors import DataError
from arcface_edu.figures import style
from arcface_edu.figures.angles import plot_pair_angles, plot_target_angles
from arcface_edu.figures.faces import contact_sheet, plot_pairs
from arcface_edu.figures.runs import plot_curves, plot_roc
from arcface_edu.figures.suspects import plot_humps
from arcface_edu.io import replace_when_done


def title(figure, panel=0):
    return figure.axes[panel].get_title(loc="left").replace("\n", " ")


def key(figure):
    return [text.get_text() for text in figure.axes[0].get_legend().get_texts()]


def counts_at(degrees, number=100):
    counts = np.zeros(90, int)
    counts[int(degrees // 2)] = number
    return counts


STAGES = {"start": counts_at(90), "middle": counts_at(60), "end": counts_at(44) + counts_at(46)}
PAIR_DEGREES, PAIR_KINDS = np.array([40.0, 50.0, 80.0, 100.0]), np.array([True, True, False, False])
STEPS = [{"step": s, "epoch": 0, "loss": 20.0 - s, "lr": 0.1, "target_angle": 90.0 - 4 * s} for s in range(11)]
SCORES = [{"step": 5, "pairs": "a.bin", "accuracy": 0.8}, {"step": 10, "pairs": "a.bin", "accuracy": 0.957}]


def noise_face(seed, size=112):
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def all_figures():
    fpr, tpr = np.array([0, 0.01, 0.1, 1.0]), np.array([0.5, 0.8, 0.9, 1.0])
    yield plot_target_angles(STAGES)
    yield plot_pair_angles(np.cos(np.radians(PAIR_DEGREES)), PAIR_KINDS, 0.5)
    yield plot_roc(fpr, tpr)
    yield plot_roc({name: (fpr, tpr) for name in ("softmax", "norm-softmax", "ArcFace", "CosFace", "my own head")})
    yield plot_curves(STEPS, SCORES)
    yield contact_sheet([[noise_face(0)] * 6], ["one person"], "What the network sees")
    yield plot_pairs(
        [noise_face(0)], [noise_face(1)], ["different, 40.1°"], "The hardest pair of strangers of them all"
    )


def test_target_angles_tell_the_means():
    figure = plot_target_angles(STAGES)
    # Bins of 2 degrees: 90 falls into 90-92, whose middle is 91; the end is half at 45, half at 47.
    assert key(figure) == ["start: mean 91.0°", "middle: mean 61.0°", "end: mean 46.0°"]
    assert title(figure) == "Training draws faces in towards their own class centre: 91° becomes 46°"
    assert "away" in title(plot_target_angles(dict(reversed(STAGES.items()))))
    assert title(plot_target_angles({"now": counts_at(60)})).startswith("Faces lie 61°")


def test_pair_angles_draw_the_threshold_at_its_degrees():
    figure = plot_pair_angles(np.cos(np.radians(PAIR_DEGREES)), PAIR_KINDS, threshold_cosine=0.5)
    (line,) = figure.axes[0].get_lines()
    assert line.get_xdata()[0] == pytest.approx(60.0)
    assert [text.get_text() for text in figure.axes[0].texts] == ["threshold 60.0°"]
    assert (
        title(figure)
        == "Same-person pairs sit 45° closer than strangers; 0.0% of all pairs end on the wrong side of 60.0°"
    )
    assert key(figure) == ["same person: mean 45.0°", "different people: mean 90.0°", "overlap 0.0%"]
    wrong = plot_pair_angles(np.cos(np.radians(PAIR_DEGREES)), PAIR_KINDS, np.cos(np.radians(90)))
    assert "25.0% of all pairs end on the wrong side of 90.0°" in title(wrong)
    assert not plot_pair_angles(np.cos(np.radians(PAIR_DEGREES)), PAIR_KINDS).axes[0].get_lines()


def test_pair_angles_know_overlap_and_worse_than_chance():
    degrees = np.array([51, 61, 51, 31.0])
    figure = plot_pair_angles(np.cos(np.radians(degrees)), PAIR_KINDS)
    assert "overlap 50.0%" in key(figure) and "sit 15° further apart than strangers" in title(figure)
    assert plot_pair_angles([1.0, 1.0], [True, False]).axes  # identical pairs: one bin


def test_roc_names_the_tar_at_a_far_the_data_resolves():
    fpr = np.linspace(0, 1, 1001)  # 1,000 impostors: FAR 1e-2 is the finest that ten of them resolve
    curves = {"softmax": (fpr, np.sqrt(fpr)), "ArcFace": (fpr, fpr**0.25)}
    figure = plot_roc(curves)
    assert (
        title(figure) == "With 1 stranger in 100 let in, ArcFace recognises 31.6% of same-person pairs, softmax 10.0%"
    )
    assert key(figure) == ["guessing", "softmax: 10.0%", "ArcFace: 31.6%"]
    ax = figure.axes[0]
    assert ax.get_xscale() == "log" and ax.get_xlim() == pytest.approx((1e-3, 1))
    marks = [line for line in ax.get_lines() if line.get_marker() == "o"]
    assert [(mark.get_xdata()[0], mark.get_ydata()[0]) for mark in marks] == [
        (0.01, pytest.approx(0.1)),
        (0.01, pytest.approx(0.01**0.25)),
    ]
    assert marks[1].get_color() == style.METHODS["ArcFace"]
    assert "in 10 let in, CosFace" in title(plot_roc([0, 0.2, 1], [0, 0.5, 1], label="CosFace"))


def test_curves_tell_start_and_end():
    figure = plot_curves(STEPS, SCORES)
    assert title(figure, 0) == "The loss falls from 20.0 to 10.0"
    assert title(figure, 1) == "Faces close in on their own centre: from 90° to 50°"
    assert title(figure, 2) == "In the end 95.7% of the pairs of unseen people are judged rightly"
    assert figure.axes[2].get_lines()[0].get_xydata().tolist() == [[5, 80.0], [10, pytest.approx(95.7)]]
    assert len(plot_curves(STEPS).axes) == 2


def test_curves_of_a_resumed_run_count_each_step_once():
    # Killed at step 10, resumed from step 5: the second account of steps 5 ... 7 holds.
    again = [dict(line, loss=3.0) for line in STEPS[5:8]]
    loss = plot_curves(STEPS + again).axes[0].get_lines()[0].get_xydata()
    assert loss[:, 0].tolist() == list(range(11)) and loss[5:8, 1].tolist() == [3.0] * 3 and loss[8, 1] == 12.0


def test_running_mean_is_centred():
    lines = [{"step": s, "loss": float(s), "target_angle": 2.0 * s} for s in range(200)]
    raw, mean = plot_curves(lines).axes[0].get_lines()
    np.testing.assert_allclose(mean.get_ydata(), mean.get_xdata())  # of a straight line, the line itself
    assert len(raw.get_xdata()) == 200 and len(mean.get_xdata()) == 196


def pixels(figure):
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def find(sheet, face):
    """Is `face` (H, W, 3) in `sheet`, pixel for pixel?"""
    corners = np.argwhere((sheet == face[0, 0]).all(-1))
    h, w = face.shape[:2]
    return any(np.array_equal(sheet[y : y + h, x : x + w], face) for y, x in corners)


def test_faces_are_drawn_pixel_for_pixel():
    one, two, three = (noise_face(seed) for seed in range(3))
    tensor = torch.from_numpy(two).permute(2, 0, 1)
    sheet = pixels(contact_sheet([[one, tensor], [three]], ["first", "second"], "Two people"))
    assert all(find(sheet, face) for face in (one, two, three))
    pairs = pixels(plot_pairs([one, two, three], [tensor, three, one], ["a", "b", "c"], "Three pairs", columns=2))
    assert all(find(pairs, face) for face in (one, two, three))


def test_small_faces_are_enlarged_by_a_whole_factor():
    small = noise_face(0, size=28)
    assert find(pixels(contact_sheet([[small]])), small.repeat(4, 0).repeat(4, 1))


def test_captions_and_titles_are_there():
    figure = plot_pairs([noise_face(0)] * 2, [noise_face(1)] * 2, ["same, 80.1°", "different, 40.2°"], "Hardest")
    assert [text.get_text() for text in figure.axes[0].texts] == ["Hardest", "same, 80.1°", "different, 40.2°"]
    figure = contact_sheet([[noise_face(0)], [noise_face(1)]], ["p1", "p2"])
    assert [text.get_text() for text in figure.axes[0].texts if text.get_text()] == ["p1", "p2"]


@pytest.mark.parametrize("number", range(7))
def test_nothing_is_cut_off_or_too_small_and_no_key_lies_over_data(number):
    figure = next(itertools.islice(all_figures(), number, None))
    assert isinstance(figure, Figure) and to_rgb(figure.get_facecolor()) == (1, 1, 1)
    pixels(figure)  # lays everything out
    ink, page = figure.get_tightbbox(), figure.bbox_inches
    assert ink.x0 >= -0.01 and ink.y0 >= -0.01 and ink.x1 <= page.x1 + 0.01 and ink.y1 <= page.y1 + 0.01
    assert all(text.get_fontsize() >= 9 for text in figure.findobj(Text) if text.get_text() and text.get_visible())
    for ax in figure.axes:
        if ax.get_legend():
            assert ax.get_legend().get_window_extent().y0 >= ax.get_window_extent().y1 - 1
            assert ax.get_legend().get_window_extent().y1 <= ax._left_title.get_window_extent().y0 + 1
    assert plt.get_fignums() == []


def test_a_given_ax_is_drawn_into():
    figure = Figure(figsize=(12, 5))
    left, right = figure.subplots(1, 2)
    assert plot_target_angles(STAGES, ax=left) is figure and left.get_title(loc="left")
    assert plot_roc([0, 0.1, 1], [0, 0.9, 1], ax=right) is figure and right.get_xscale() == "log"
    assert contact_sheet([[noise_face(0)]], ax=Figure().add_subplot()).axes[0].get_images()
    panels = Figure().subplots(2, 1)
    assert plot_curves(STEPS, axes=panels) is panels[0].figure


def test_one_colour_has_one_meaning():
    colors = [style.SAME, style.DIFFERENT, *style.METHODS.values(), style.COMPUTE, style.COMMUNICATION, style.WAITING]
    assert len(set(colors)) == len(colors)
    assert np.allclose(style.shades(style.SAME, 3)[-1], to_rgb(style.SAME)) and len(style.shades(style.SAME, 1)) == 1
    assert style.method_color("something else") not in colors


def test_saved_whole_or_not_at_all(tmp_path, monkeypatch):
    figure = contact_sheet([[noise_face(0)]])
    path = style.save(figure, tmp_path / "deep" / "sheet.png")
    assert find(np.asarray(Image.open(path).convert("RGB")), noise_face(0))
    whole = path.read_bytes()

    def disk_full(self, target, **_):
        assert target != path  # never into the good file
        target.write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(Figure, "savefig", disk_full)
    with pytest.raises(OSError, match="no space"):
        style.save(figure, path)
    assert path.read_bytes() == whole and [p.name for p in path.parent.iterdir()] == ["sheet.png"]


def test_a_name_without_an_ending_is_a_png(tmp_path):
    path = style.save(contact_sheet([[noise_face(0)]]), tmp_path / "sheet")
    assert path.read_bytes().startswith(b"\x89PNG") and [p.name for p in tmp_path.iterdir()] == ["sheet"]


def test_what_a_killed_process_left_is_written_over(tmp_path):
    written = []
    for _ in range(2):
        files = replace_when_done(tmp_path / "sheet.png")
        written.append(files.__enter__())  # killed here: it never comes to the end
        written[-1].write_bytes(b"half")
    assert written[0] == written[1] and written[0].name.startswith(".")
    style.save(contact_sheet([[noise_face(0)]]), tmp_path / "sheet.png")
    assert [p.name for p in tmp_path.iterdir()] == ["sheet.png"]


@pytest.mark.parametrize(
    ("draw", "says"),
    [
        (lambda: plot_target_angles({}), "no histogram"),
        (lambda: plot_target_angles({"start": counts_at(90), "end": np.zeros(90)}), "'end' counts nothing"),
        (lambda: plot_pair_angles([0.1, 0.2], [True, True]), "one kind is missing"),
        (lambda: plot_roc({}), "at least one curve"),
        (lambda: plot_roc([0.0, 0.0], [0.0, 1.0]), "FAR above 0"),
        (lambda: plot_curves([]), "no training lines"),
        (lambda: contact_sheet([]), "at least one image"),
        (lambda: contact_sheet([[noise_face(0)]], ["a", "b"]), "2 titles for 1 rows"),
        (lambda: contact_sheet([[np.zeros((112, 112))]]), r"float64 \(112, 112\)"),
        (lambda: plot_pairs([noise_face(0)], [], []), "1 first, 0 second faces and 0 captions"),
    ],
)
def test_what_cannot_be_drawn_is_named(draw, says):
    with pytest.raises(DataError, match=says):
        draw()


def test_the_humps_name_every_head_and_kind():
    angles, wrong = np.linspace(20, 90, 50), np.arange(50) > 40
    figure = plot_humps(
        {kind: {head: (angles, wrong) for head in ("arcface", "softmax")} for kind in ("flip", "merge")}
    )
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    assert titles == ["arcface", "softmax", "", ""]
    assert [ax.get_ylabel() for ax in figure.axes] == ["flip, images (%)", "", "merge, images (%)", ""]
