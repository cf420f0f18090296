from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.benchmark.trace_times import TraceClock


def read(*values: Any) -> list[float]:
    clock = TraceClock()
    return [clock.seconds(value, line) for line, value in enumerate(values, start=1)]


@pytest.mark.parametrize(
    ("values", "seconds"),
    [
        ((0, 27482, 27490), [0, 27.482, 27.49]),
        ((0, 0.5, 1.25), [0, 0.5, 1.25]),
        ((3.0, 0, 4.5), [3, 0, 4.5]),
        ((1767605412, 1767605413.5), [1767605412, 1767605413.5]),
        ((1767605412345, 1767605412346), [1767605412.345, 1767605412.346]),
        ((1767605412345.25,), [1767605412.34525]),
        (("1970-01-01T00:00:01.5Z", "1970-01-01T01:00:02+01:00"), [1.5, 2]),
        (("1970-01-01T00:00:03",), [3]),
    ],
)
def test_size_and_form_tell_the_unit(values: tuple[Any, ...], seconds: list[float]) -> None:
    assert read(*values) == pytest.approx(seconds, abs=1e-6)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ((5, 0.5), "in seconds since the start, but that of line 1 in milliseconds since the st"),
        ((1767605412, 5), "in milliseconds since the start, but that of line 1 in seconds of Unix"),
        ((0, 1767605412), "in seconds of Unix time, but that of line 1 in seconds or milli"),
        ((0, "1970-01-01T00:00:01Z"), "in RFC 3339, but that of line 1 in seconds or"),
        ((0, 5, 0.5), "but that of line 2 in milliseconds since the start"),
        ((1767605412, 0), "but that of line 1 in seconds of Unix time"),
        (("1970-01-01T00:00:01Z", 1), "but that of line 1 in RFC 3339"),
        ((None,), "timestamp must be a number, or a time like"),
        ((True,), "timestamp must be a number"),
        (("noon",), "not 'noon'"),
        ((-1,), "must be from 0 to 10.15, not -1"),
        ((10**400,), r"not 1e\+30"),
    ],
)
def test_what_is_no_time_of_the_trace_is_refused(values: tuple[Any, ...], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        read(*values)


@given(st.lists(st.integers() | st.floats() | st.text() | st.none() | st.datetimes().map(str)))
def test_anything_is_read_or_refused(values: list[Any]) -> None:
    try:
        assert len(read(*values)) == len(values)
    except ValueError as exc:
        assert "timestamp" in str(exc)
