"""Pictures of photographs in a notebook: small, and still what was drawn."""

import io

import numpy as np
from PIL import Image

from arcface_edu.course.notebook import as_jpeg
from arcface_edu.figures.faces import contact_sheet


def test_a_sheet_of_photographs_is_a_small_jpeg_of_the_same_picture():
    grain = np.random.default_rng(0).normal(0, 12, (112, 112, 3))
    photo = np.clip(np.linspace(60, 200, 112)[:, None, None] + grain, 0, 255).astype(np.uint8)
    figure, png = contact_sheet([[photo] * 4], title="Four"), io.BytesIO()
    figure.savefig(png, format="png", dpi=figure.dpi)
    shown = as_jpeg(figure)
    assert "image/jpeg" in shown._repr_mimebundle_()[0]
    assert len(shown.data) < len(png.getvalue()) / 3
    small, whole = (Image.open(io.BytesIO(data)).convert("RGB") for data in (shown.data, png.getvalue()))
    assert small.size == whole.size
    assert np.abs(np.asarray(small, float) - np.asarray(whole, float)).mean() < 12
