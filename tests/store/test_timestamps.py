from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.store.timestamps import (
    from_stored,
    maybe_from_stored,
    maybe_to_stored,
    to_stored,
)

times = st.datetimes(timezones=st.just(UTC))


@given(times)
def test_a_time_comes_back_as_it_was_stored(at: datetime) -> None:
    assert from_stored(to_stored(at)) == at


@given(times, times)
def test_stored_times_compare_as_the_times_do(one: datetime, other: datetime) -> None:
    assert (to_stored(one) < to_stored(other)) == (one < other)


def test_other_zones_are_stored_as_utc() -> None:
    at = datetime(2030, 1, 2, 1, 0, tzinfo=timezone(timedelta(hours=2)))
    assert to_stored(at) == "2030-01-01T23:00:00.000000Z"
    assert from_stored(to_stored(at)).utcoffset() == timedelta(0)


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="zone"):
        to_stored(datetime(2030, 1, 1))


def test_none_stays_none() -> None:
    assert maybe_to_stored(None) is None
    assert maybe_from_stored(None) is None
    at = datetime(2030, 1, 1, tzinfo=UTC)
    assert maybe_from_stored(maybe_to_stored(at)) == at
