"""Plots are well-formed, stay within their frame, and have few, round ticks."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agenttuning_plugin.reports.mix import svg


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=9),
    st.floats(1e-9, 1e9),
    st.lists(st.integers(0, 10**9), min_size=1, max_size=9),
)
@settings(max_examples=60, deadline=None)
def test_plots_stay_within_their_frame(shares: list[float], top: float, counts: list[int]) -> None:
    starts = [i * top for i in range(len(shares))]
    plots = [
        svg.lines("a", "x", starts, len(shares) * top, {"tokens": shares}, [(0, 0.2)]),
        svg.histogram("b", "x", [0, *range(1, len(counts) + 1)], {"agent": counts}, (3, "mark")),
        svg.bars("c", "x", [str(i) for i in counts], counts, "agent"),
    ]
    for plot in plots:
        for element in ET.fromstring(str(plot)).iter():
            tag, attributes = element.tag, element.attrib
            numbers = [attributes.get(name) for name in ("x", "x1", "x2", "cx")]
            numbers += [p.split(",")[0] for p in (attributes.get("points") or "").split()]
            assert all(0 <= float(x) <= svg.WIDTH for x in numbers if x), tag
            numbers = [attributes.get(name) for name in ("y", "y1", "y2", "cy")]
            numbers += [p.split(",")[1] for p in (attributes.get("points") or "").split()]
            assert all(0 <= float(y) <= svg.HEIGHT for y in numbers if y), tag


@pytest.mark.parametrize("top", [1e-9, 0.3, 1, 4.9, 64, 4096, 1e9])
def test_ticks_are_round_and_few(top: float) -> None:
    found = svg.ticks(top)
    assert found[0] == 0
    assert found[-1] <= top * (1 + 1e-9)
    assert 2 <= len(found) <= 6
