"""Pictures that answer to the hand: a figure with sliders beside it, and one that can be dragged.

    Panel(plot_margin_circle, m2=FloatSlider(0.5, min=0, max=1))

A panel draws one of the house's `plot_*` functions again whenever a control moves. Where nobody can move anything, on
GitHub or in the course's HTML pages, the very same picture stands still: a panel shows itself as a PNG, too.
"""

import base64
import io
from collections.abc import Callable
from typing import Any

import anywidget
import ipywidgets
import numpy as np
import traitlets
from matplotlib.axes import Axes
from matplotlib.figure import Figure

WIDGET = "application/vnd.jupyter.widget-view+json"  # how a notebook's output refers to a live widget


class Picture(anywidget.AnyWidget):
    """A PNG that tells where the pointer drags it."""

    # One message at a time: while the next picture is being drawn, of the pointer's way only its end is kept.
    _esm = """
    export default {
      render({ model, el }) {
        const picture = document.createElement("img");
        picture.draggable = false;
        picture.alt = "a figure that follows the controls";
        picture.style.cssText = "max-width: 100%; touch-action: none;" + (model.get("drags") ? "cursor: grab" : "");
        let timer, waiting = false, missed = null, last = [0, 0];
        const show = () => {
          URL.revokeObjectURL(picture.src);
          picture.src = URL.createObjectURL(new Blob([model.get("png")], { type: "image/png" }));
          ready();
        };
        const ready = () => {
          waiting = false;
          if (missed) tell(missed, false);
        };
        const tell = (event, begins) => {
          missed = waiting ? event : null;
          if (!model.get("drags") || waiting) return;
          const box = picture.getBoundingClientRect();
          const x = (event.clientX - box.left) / box.width, y = (box.bottom - event.clientY) / box.height;
          const [dx, dy] = begins ? [0, 0] : [x - last[0], y - last[1]];
          last = [x, y];
          waiting = true;
          model.set("pointer", [x, y, dx, dy]);
          model.save_changes();
          clearTimeout(timer);
          timer = setTimeout(ready, 400);
        };
        picture.addEventListener("pointerdown", (event) => {
          picture.setPointerCapture(event.pointerId);
          waiting = false;
          tell(event, true);
        });
        picture.addEventListener("pointermove", (event) => event.buttons && tell(event, false));
        model.on("change:png", show);
        show();
        el.appendChild(picture);
      },
    };
    """
    png = traitlets.Bytes().tag(sync=True)
    drags = traitlets.Bool(False).tag(sync=True)
    pointer = traitlets.List([0.0, 0.0, 0.0, 0.0]).tag(sync=True)


class Panel(ipywidgets.VBox):
    """A figure that is drawn again when one of its controls moves.

    Args:
        plot: A function of the controls' values, by their names, that returns a matplotlib Figure.
        controls: name -> an ipywidgets widget with a `value`.
        drag: What a drag on the picture means, or None: a function of (figure, x, y, dx, dy), all as shares of the
            figure from its lower left corner, that returns a dict of new values of controls.
    """

    def __init__(
        self, plot: Callable[..., Figure], drag: Callable[..., dict[str, Any]] | None = None, **controls: Any
    ) -> None:
        self.plot, self.drag, self.controls = plot, drag, controls
        self.picture = Picture(drags=drag is not None)
        self.redraw()
        for control in controls.values():
            control.observe(self.redraw, "value")
        self.picture.observe(self.dragged, "pointer")
        super().__init__([self.picture, *controls.values()])

    def redraw(self, _: Any = None) -> None:
        self.figure = self.plot(**{name: control.value for name, control in self.controls.items()})
        self.picture.png = png_of(self.figure)

    def dragged(self, change: Any) -> None:
        if self.drag is None:
            return
        moved = self.drag(self.figure, *change.new)
        # All controls at once, and one new picture: the state in between is none that anybody asked for.
        for control in self.controls.values():
            control.unobserve(self.redraw, "value")
        for name, value in moved.items():
            self.controls[name].value = value
        for control in self.controls.values():
            control.observe(self.redraw, "value")
        self.redraw()

    def _repr_mimebundle_(self, **options: Any) -> dict[str, Any]:
        data = super()._repr_mimebundle_(**options)
        return data | {"image/png": base64.b64encode(self.picture.png).decode()}


def png_of(figure: Figure) -> bytes:
    """Return a figure as PNG bytes, of its full size, so that a place on it is a place in the picture."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=figure.dpi)
    return buffer.getvalue()


def place_in(ax: Axes, x: float, y: float) -> np.ndarray:
    """Return where a point, as shares of the figure, lies in an ax: its data coordinates."""
    return ax.transData.inverted().transform(ax.figure.transFigure.transform((x, y)))
