"""Panels: the picture follows the controls, a drag moves controls, and without a kernel a still picture is there."""

import base64
import io

import pytest
from ipywidgets import FloatSlider
from matplotlib.image import imread

from arcface_edu.course.widgets import WIDGET, Panel, place_in
from arcface_edu.figures.style import canvas


def plot_level(level, other=0.0):
    figure, ax = canvas(size=(4, 3))
    ax.set(xlim=(0, 10), ylim=(0, 100))
    ax.axhline(level)
    ax.axhline(other)
    return figure


def panel(**options):
    return Panel(plot_level, level=FloatSlider(20, max=100), other=FloatSlider(0, max=100), **options)


def test_the_picture_follows_a_control():
    shown = panel()
    before = shown.picture.png
    shown.controls["level"].value = 60
    assert shown.picture.png != before
    shown.controls["level"].value = 20
    assert shown.picture.png == before


def test_a_drag_moves_controls_and_draws_once(monkeypatch):
    drawn = []

    def drag(figure, x, y, dx, dy):
        return dict(level=place_in(figure.axes[0], x, y)[1], other=10)

    shown = panel(drag=drag)
    plot = shown.plot
    shown.plot = lambda **values: drawn.append(values) or plot(**values)
    box = shown.figure.axes[0].get_position()
    shown.picture.pointer = [box.x0 + box.width / 2, box.y0 + 0.7 * box.height, 0.0, 0.0]
    assert [values["level"] for values in drawn] == [pytest.approx(70, abs=0.1)]
    shown.controls["other"].value = 50  # and afterwards the controls answer as before
    assert drawn[-1]["other"] == 50


def test_what_is_kept_of_a_panel_is_its_picture():
    bundle = panel()._repr_mimebundle_()
    assert WIDGET in bundle
    assert imread(io.BytesIO(base64.b64decode(bundle["image/png"]))).shape[:2] == (300, 400)
