"""The check of notebook 08: the solution passes, and each usual slip is named."""

import numpy as np
import pytest

from arcface_edu.course.checks.labs import check_suspects


def solution(embeddings, label):
    means = np.stack([embeddings[label == c].mean(0) for c in range(label.max() + 1)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    return (embeddings @ means.T).argmax(1) != label


def test_the_solution_passes(capsys):
    assert check_suspects(solution)
    assert "Right" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("attempt", "says"),
    [
        (lambda e, label: None, "returns nothing yet"),
        (lambda e, label: solution(e, label).astype(int), "a bool for each of the 6 images"),
        (lambda e, label: ~solution(e, label), "these are the others"),
        (lambda e, label: np.zeros(len(e), bool), "the third and the sixth are suspected"),
        (lambda e, label: solution(e, label) & (label < 2), "with five classes"),
    ],
)
def test_a_slip_is_named(attempt, says, capsys):
    assert not check_suspects(attempt)
    assert says in capsys.readouterr().out
