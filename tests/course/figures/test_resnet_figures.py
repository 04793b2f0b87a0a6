"""The pictures of the residual network show what they are given."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patches import FancyBboxPatch, Rectangle

from arcface_edu.course.figures import resnet
from arcface_edu.errors import DataError

FACE = np.full((3, 112, 112), 200, np.uint8)
NORMS = {"skip, BN": [36.0, 8.0, 4.0], "no skip, BN": [300.0, 30.0, 3.0], "no skip, no BN": [1e-32, 1e-32, 1e-33]}
BUDGETS = {"parameters": {"stem": 10, "stage 1": 30, "end": 60}, "work": {"stem": 50, "stage 1": 49, "end": 1}}


def title(figure, panel=0):
    return figure.axes[panel].get_title(loc="left").replace("\n", " ")


def gradient(side):
    values, begin = np.zeros((112, 112)), 56 - side // 2
    values[begin : begin + side, begin : begin + side] = 1.0
    return values


def all_figures():
    yield resnet.plot_blocks()
    yield resnet.plot_gradient_norms(NORMS)
    yield resnet.plot_losses({"skip, BN": [2.0, 0.1, 0.0], "no skip, BN": [2.0, 2.1, 2.2]}, chance=2.08)
    yield resnet.plot_stages(FACE, {"28 × 28, 128 channels": np.random.default_rng(0).random((28, 28))})
    yield resnet.plot_reach(FACE, {"stage 1": gradient(23), "stage 3": gradient(112)}, [23, 511])
    yield resnet.plot_budget(BUDGETS, "end")
    yield resnet.plot_depth(["r18", "r50"], [2.6, 6.3], {"IJB-C": [6.6, 4.1], "MFR-ALL": [20.9, 6.0]})


@pytest.mark.parametrize("number", range(7))
def test_nothing_sticks_out_and_nothing_is_small(number):
    figure = list(all_figures())[number]
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    width, height = canvas.get_width_height()
    for ax in figure.axes:
        for text in [*ax.texts, ax.title, ax._left_title, ax.xaxis.label, ax.yaxis.label]:
            if text.get_text():
                box = text.get_window_extent()
                assert min(box.x0, box.y0) >= 0, text
                assert box.x1 <= width, text
                assert box.y1 <= height, text
                assert text.get_fontsize() >= 9


def test_the_blocks_hold_the_layers_of_the_two_networks():
    figure = resnet.plot_blocks()
    names = [text.get_text() for text in figure.axes[0].texts]
    assert names.count("BN") == 2 + 3
    assert names.count("ReLU") == 2
    assert names.count("PReLU") == 1
    assert sum(isinstance(patch, FancyBboxPatch) for patch in figure.axes[0].patches) == 6 + 6
    assert names.index("conv 3×3, stride") < names.index("BN")  # ResNet's first layer carries the stride ...
    assert names[::-1].index("conv 3×3, stride") < names[::-1].index("PReLU")  # ... IResNet's second convolution


def test_a_gradient_that_is_gone_is_told_and_not_drawn():
    figure = resnet.plot_gradient_norms(NORMS)
    assert [line.get_label() for line in figure.axes[0].lines] == ["skip, BN: 9 ×", "no skip, BN: 100 ×"]
    assert title(figure) == (
        "How many times the last block's gradient the first block gets; no skip, no BN: nothing, 1e-32"
    )
    with pytest.raises(DataError):
        resnet.plot_gradient_norms({})


def test_only_what_learns_is_said_to_learn():
    losses = {"skip, BN": [2.0, 0.1], "no skip, BN": [2.0, 1.9]}
    assert title(resnet.plot_losses(losses, 2.08)) == "1 of 2 stacks learn their few faces by heart: skip, BN"
    assert title(resnet.plot_losses({"no skip, BN": [2.0, 1.9]}, 2.08)).startswith("None")
    with pytest.raises(DataError):
        resnet.plot_losses({}, 2.08)


def test_the_frame_encloses_the_pixels_that_matter():
    figure = resnet.plot_reach(FACE, {"stage 1": gradient(23)}, [23])
    (frame,) = (patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle))
    assert frame.get_xy() == (44.5, 44.5)
    assert (frame.get_width(), frame.get_height()) == (23, 23)
    assert figure.axes[0].texts[0].get_text() == "21% of its side"
    shown = figure.axes[0].images[0].get_array()
    assert shown[56, 56].min() > 3 * shown[0, 0].max()
    with pytest.raises(DataError, match="stage 1"):
        resnet.plot_reach(FACE, {"stage 1": np.zeros((112, 112))}, [23])


def test_bars_of_a_budget_are_its_shares():
    figure = resnet.plot_budget(BUDGETS, "end")
    assert [bar.get_width() for bar in figure.axes[0].patches] == pytest.approx([10, 30, 60, 50, 49, 1])
    assert title(figure) == "The end has 60.0% of the parameters and 1.0% of the work"


def test_depth_is_drawn_at_its_work():
    figure = resnet.plot_depth(["r18", "r50"], [2.6, 6.3], {"IJB-C": [6.6, 4.1]})
    (line,) = figure.axes[0].lines
    assert line.get_xydata().tolist() == [[2.6, 6.6], [6.3, 4.1]]
    assert [text.get_text() for text in figure.axes[0].texts] == ["6.6", "4.1"]
    assert title(figure) == "2 times the work, and of 6.6 % missed 4.1 % are left"


def test_numbers_of_lines_that_cross_stand_on_different_sides():
    figure = resnet.plot_depth(["r50", "r100"], [6.3, 12.1], {"IJB-C": [4.1, 3.5], "MFR-ALL": [6.0, 3.3]})
    sides = {text.get_text(): text.get_va() for text in figure.axes[0].texts}
    assert sides == {"4.1": "top", "3.5": "bottom", "6.0": "bottom", "3.3": "top"}
