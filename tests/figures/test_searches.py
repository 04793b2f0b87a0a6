"""CMC and open-set curves say what the data says, and fit on their page."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from arcface_edu.errors import DataError
from arcface_edu.figures.runs import plot_cmc, plot_open_set


def title(figure):
    return figure.axes[0].get_title(loc="left").replace("\n", " ")


def key(figure):
    return [text.get_text() for text in figure.axes[0].get_legend().get_texts()]


@pytest.mark.parametrize(
    "figure",
    [
        plot_cmc(np.linspace(0.9, 1, 50)),
        plot_cmc({"ArcFace": [0.8, 1], "softmax": [0.6, 1]}),
        plot_cmc([0.98]),
        plot_open_set(np.arange(101) / 100, np.linspace(0, 1, 101)),
    ],
)
def test_nothing_is_cut_off(figure):
    FigureCanvasAgg(figure).draw()
    ink, page = figure.get_tightbbox(), figure.bbox_inches
    assert ink.x0 >= -0.01 and ink.y0 >= -0.01 and ink.x1 <= page.x1 + 0.01 and ink.y1 <= page.y1 + 0.01


def test_cmc_says_how_often_the_right_person_comes_first():
    figure = plot_cmc([0.8, 0.9, 0.95, 0.97, 0.99, 1.0])
    assert title(figure) == "The right person comes first in 80.0% of the searches, and is among the first 5 in 99.0%"
    line = figure.axes[0].lines[0]
    assert line.get_xdata().tolist() == [1, 2, 3, 4, 5, 6] and line.get_ydata()[0] == 0.8
    assert key(plot_cmc({"ArcFace": [0.8, 1], "softmax": [0.6, 1]})) == [
        "ArcFace: 80.0% at rank 1",
        "softmax: 60.0% at rank 1",
    ]
    assert "first 1" not in title(plot_cmc([1.0]))
    with pytest.raises(DataError, match="at least one rank"):
        plot_cmc({"ArcFace": []})


def test_open_set_curve_marks_one_stranger_in_a_hundred():
    far, rate = np.arange(1001) / 1000, np.linspace(0.5, 1, 1001)
    figure = plot_open_set(far, rate)
    wanted = "With 1.0% of the strangers taken for somebody, 50.5% of known people are named rightly"
    assert title(figure) == wanted
    assert figure.axes[0].lines[1].get_xdata().tolist() == [0.01]
    assert title(plot_open_set([0, 0.5, 1], [0.2, 0.4, 0.6])).startswith("With 50.0% of the strangers")
    with pytest.raises(DataError, match="strangers"):
        plot_open_set([0.0], [1.0])
