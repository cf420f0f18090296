"""Rows of figures as little bars."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.benchmark.sparkline import sparkline


def test_bars_grow_with_the_figures() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6], 10) == "▁▂▃▄▅▆▇"


def test_a_terminal_without_blocks_gets_letters() -> None:
    assert sparkline([0, 6], 10, has_blocks=False) == "_#"


def test_neighbours_share_a_bar_where_there_is_no_room() -> None:
    assert sparkline([0, 0, 9, 9], 2) == "▁▇"


@pytest.mark.parametrize("values", [[0.0], [0.0, 0.0]])
def test_nothing_at_all_is_flat(values: list[float]) -> None:
    assert sparkline(values, 10) == "▁" * len(values)


@given(st.lists(st.floats(min_value=0, max_value=1e9), max_size=200), st.integers(-3, 100))
def test_it_is_never_wider_than_asked_for(values: list[float], width: int) -> None:
    assert len(sparkline(values, width)) == min(len(values), max(width, 1))
