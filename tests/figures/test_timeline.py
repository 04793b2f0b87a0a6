"""The timeline of a profile says what its intervals say."""

import numpy as np
import pytest

from arcface_edu.errors import DataError
from arcface_edu.figures.timeline import plot_timeline


def title(figure, panel=0):
    return figure.axes[panel].get_title(loc="left").replace("\n", " ")


def test_a_timeline_takes_lists_as_json_brings_them():
    line = dict(compute=[[0, 6]], communication=[[4, 8]], hidden=[[4, 6]], waiting=[[8, 10]], steps=[[0, 10]])
    line["phases"] = [["backward", 0, 8]]
    figure = plot_timeline([line, line])
    assert title(figure) == "50% of the communication travels while a rank computes; 20% of its time a rank waits"
    arrays = {kind: spans if kind == "phases" else np.array(spans, float) for kind, spans in line.items()}
    assert title(plot_timeline([arrays])) == title(figure)
    with pytest.raises(DataError, match="at least one step"):
        plot_timeline([])


def test_a_timeline_begins_at_zero_wherever_the_clock_stands():
    line = dict(compute=[[0, 6]], communication=[[4, 8]], hidden=[[4, 6]], waiting=[[8, 10]], steps=[[0, 10]])
    later = {kind: [[first - 175, last - 175] for first, last in spans] for kind, spans in line.items()}
    pictures = [plot_timeline([spans | dict(phases=[])]) for spans in (line, later)]
    assert [figure.axes[0].get_xlim() for figure in pictures] == [(0, 10)] * 2
    bars = [[bar.get_datalim(bar.axes.transData).bounds for bar in figure.axes[0].collections] for figure in pictures]
    assert bars[0] == bars[1]
