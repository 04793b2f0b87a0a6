"""What moves ends where the data ends; random directions lie where the closed form says."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from arcface_edu.course.figures import animations
from arcface_edu.course.figures.animations import animate_plane, animate_target_angles, draw_plane, save_animation
from arcface_edu.course.figures.random_angles import plot_random_angles
from arcface_edu.errors import DataError

STEPS = np.arange(10, 210, 10)
HISTOGRAMS = np.zeros((20, 90), int)
HISTOGRAMS[np.arange(20), 45 - np.arange(20)] = 64  # from 90 ... 92 degrees to 52 ... 54
DICE = np.random.default_rng(0)


def faces(count):
    return [DICE.integers(0, 256, (112, 112, 3), dtype=np.uint8) for _ in range(count)]


def title(figure, panel=0):
    return figure.axes[panel].get_title(loc="left").replace("\n", " ")


def key(figure):
    return [text.get_text() for text in figure.axes[0].get_legend().get_texts()]


def test_random_angles_crowd_at_90():
    assert title(plot_random_angles((2, 512))).endswith("90° ± 3°")
    assert key(plot_random_angles((3,))) == ["3-D: ±39.2°"]  # of sin(t)/2: sqrt(pi^2/4 - 2) radians


def test_random_angles_fit_on_their_page():
    figure = plot_random_angles()
    FigureCanvasAgg(figure).draw()
    ink, page, (ax,) = figure.get_tightbbox(), figure.bbox_inches, figure.axes
    assert ink.x0 >= -0.01 and ink.y0 >= -0.01 and ink.x1 <= page.x1 + 0.01 and ink.y1 <= page.y1 + 0.01
    assert all(text.get_fontsize() >= 9 for text in figure.findobj(Text) if text.get_text() and text.get_visible())
    assert ax.get_window_extent().y1 - 1 <= ax.get_legend().get_window_extent().y0
    assert ax.get_legend().get_window_extent().y1 <= ax._left_title.get_window_extent().y0 + 1
    assert plt.get_fignums() == []


def plane():
    """Eight people, three photographs each, that part over four frames."""
    turns = 2 * np.pi * np.arange(8) / 8
    centres = np.stack([np.cos(turns), np.sin(turns)], 1)
    labels = np.repeat(np.arange(8), 3)
    embeddings = np.stack([frame * centres[labels] + 0.1 * DICE.standard_normal((24, 2)) for frame in range(4)])
    return {"softmax": (embeddings, np.stack([centres] * 4)), "ArcFace": (embeddings, np.stack([centres] * 4))}, labels


def test_people_in_the_plane_stand_where_their_embeddings_point():
    histories, labels = plane()
    embeddings, centres = (values[-1] for values in histories["ArcFace"])
    ax = Figure().add_subplot()
    draw_plane(ax, embeddings, labels, centres, faces(8), "ArcFace")
    points = np.concatenate([cloud.get_offsets() for cloud in ax.collections])
    np.testing.assert_allclose(np.arctan2(*points.T), np.arctan2(*embeddings.T))
    assert (abs(np.linalg.norm(points, axis=1) - 1) < 0.1).all()
    assert [line.get_xydata()[1].tolist() for line in ax.get_lines()] == [pytest.approx(c) for c in centres.tolist()]


@pytest.mark.slow
def test_animations_play_all_frames_and_hold_the_last(tmp_path, monkeypatch):
    monkeypatch.setattr(animations, "HOLD", 2)
    histories, labels = plane()
    film = animate_plane(histories, labels, faces(8), notes=["a", "b", "c", "d"])
    assert list(film.new_frame_seq()) == [0, 1, 2, 3, 3, 3]
    path = save_animation(film, tmp_path / "new" / "plane.gif", seconds=2)
    assert [file.name for file in path.parent.iterdir()] == ["plane.gif"]
    with Image.open(path) as gif:
        assert gif.n_frames >= 4 and gif.info["loop"] == 0
        total = 0
        for frame in range(gif.n_frames):
            gif.seek(frame)
            total += gif.info["duration"]
        assert total == pytest.approx(2000, rel=0.1)
    film = animate_target_angles(STEPS, HISTOGRAMS, frames=5)
    save_animation(film, tmp_path / "angles.gif")
    (ax,) = film._fig.axes  # as the last frame left it
    assert "step 200" in ax.get_title(loc="left")
    assert [text.get_text() for text in ax.get_legend().get_texts()][1] == "now: mean 56.0°"  # of the last four lines
    plt.close("all")


@pytest.mark.parametrize(
    ("draw", "says"),
    [
        (lambda: animate_plane({"a": (np.zeros((0, 1, 2)), None)}, [0], faces(1)), "above 0"),
        (lambda: draw_plane(None, np.zeros((4, 3)), [0] * 4, np.zeros((1, 2)), faces(1)), "are meant"),
    ],
)
def test_what_cannot_be_drawn_is_named(draw, says):
    with pytest.raises(DataError, match=says):
        draw()
