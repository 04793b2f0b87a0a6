"""Small sets of drawn faces that several tests share."""

import pytest

from arcface_edu.data.faces import draw_faces


@pytest.fixture(scope="session")
def drawn(tmp_path_factory):
    """A folder with train.rec of 12 people x 10 photographs, and drawn.bin: 100 pairs of others."""
    folder = tmp_path_factory.mktemp("faces") / "drawn"
    draw_faces(folder, 12, 10, seed=7, pairs=100, pair_identities=10)
    return folder
