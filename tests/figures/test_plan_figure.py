"""The picture of a plan says what the page says."""

import pytest

from arcface_edu.figures.plan import plot_plan

MEMORY = {"weights": 1.0, "activations": 5.0, "fragments": 0.3, "CUDA, cuDNN, NCCL": 1.1}
TIMES = {"network": 100.0, "head": 20.0, "messages: head": 30.0}


def test_bars_are_as_long_as_what_they_show():
    upper, lower = plot_plan(MEMORY, 16, TIMES, "a card", overlapped=7.0).axes
    assert [bar.get_width() for bar in upper.patches] == pytest.approx(list(MEMORY.values()))
    assert [bar.get_width() for bar in lower.patches] == pytest.approx(list(TIMES.values()))
    assert upper.get_title(loc="left") == "7.4 GiB fit, 8.6 to spare; the most, 68%, goes to activations"
    assert lower.get_title(loc="left") == "20% of a step waits for messages; another 7 ms hide behind the backward pass"


@pytest.mark.parametrize("limit", [2, 7.4, 16])
def test_the_cards_limit_is_always_on_it(limit):
    upper = plot_plan(MEMORY, limit, TIMES).axes[0]
    assert upper.get_xlim()[1] >= max(limit, 7.4)
    if limit < 7.4:
        assert "7.4 GiB are 5.4 too many" in upper.get_title(loc="left")
