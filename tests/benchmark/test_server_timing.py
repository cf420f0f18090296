from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.benchmark.server_timing import read_server_timing


def lines(value: str, name: str = "Server-Timing") -> bytes:
    return f"HTTP/1.1 200 OK\r\nA: b\r\n{name}: {value}\r\nC: d\r".encode()


@pytest.mark.parametrize(
    "value",
    [
        "proxy;dur=0.125, upstream;dur=12.5",
        "cache;desc=miss, upstream;dur=12.5,proxy;dur=0.125;desc=x",
    ],
)
def test_both_durations_in_ticks(value: str) -> None:
    assert read_server_timing(lines(value)) == (1_250, 125_000)
    assert read_server_timing(lines(value, "server-timing")) == (1_250, 125_000)


@pytest.mark.parametrize(
    "value",
    ["proxy;dur=0.1", "upstream;dur=1", "", "proxy;dur=x, upstream;dur=1"]
    + ["proxy;dur=nan, upstream;dur=1", "proxy;dur=-1, upstream;dur=1"]
    + ["proxy;dur=inf, upstream;dur=1"],
)
def test_what_does_not_tell_both_tells_nothing(value: str) -> None:
    assert read_server_timing(lines(value)) is None


def test_the_upstreams_own_header_does_not_hide_that_of_the_proxy() -> None:
    both = lines("db;dur=3\r\nServer-Timing: proxy;dur=0.125, upstream;dur=12.5")
    assert read_server_timing(both) == (1_250, 125_000)


def test_another_header_is_not_mistaken_for_it() -> None:
    assert read_server_timing(b"HTTP/1.1 200 OK\r\nX: proxy;dur=1, upstream;dur=2\r") is None


@given(st.binary(max_size=80))
def test_no_value_raises(value: bytes) -> None:
    read_server_timing(b"HTTP/1.1 200 OK\r\nServer-Timing: " + value)
