from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_proxy.benchmark.mock_answer import Refused
from llm_proxy.benchmark.mock_faults import NO_FAULTS, Faults, read_faults
from llm_proxy.benchmark.mock_request import Request


def _read(*headers: tuple[bytes, bytes]) -> Faults:
    return read_faults(Request("GET", b"/", [(b"Host", b"mock"), *headers]))


def test_without_headers_nothing_goes_wrong() -> None:
    assert _read() is NO_FAULTS


def test_every_header_is_read() -> None:
    faults = _read(
        (b"X-Mock-Status", b"429"),
        (b"x-mock-retry-after", b"3"),
        (b"X-MOCK-DELAY", b"250ms"),
        (b"X-Mock-Cut", b"0"),
        (b"X-Mock-Encoding", b"br"),
        (b"X-Mock-Tokens", b"7"),
        (b"X-Mock-Stall", b"5:300ms"),
        (b"X-Mock-Corrupt", b"9"),
        (b"X-Mock-Share", b"25%"),
    )
    assert faults == Faults(
        status=429,
        retry_after="3",
        delay_s=0.25,
        cut=0,
        encoding="br",
        tokens=7,
        stall_after=5,
        stall_s=0.3,
        corrupt=9,
        share=0.25,
    )
    assert faults.spared == Faults(encoding="br", tokens=7)


def test_a_delay_without_a_unit_is_in_seconds() -> None:
    assert _read((b"X-Mock-Delay", b"1.5")).delay_s == 1.5


def test_a_cut_can_come_before_the_head() -> None:
    faults = _read((b"X-Mock-Cut", b"head"))
    assert faults.cut_head
    assert faults.cut is None


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (b"X-Mock-Status", b"199", "X-Mock-Status must be a whole number from 200 to 599"),
        (b"X-Mock-Status", b"4e2", "not '4e2'"),
        (b"X-Mock-Cut", b"-1", "X-Mock-Cut must be"),
        (b"X-Mock-Cut", b"9" * 30, "X-Mock-Cut must be"),
        (b"X-Mock-Tokens", b"0", "from 1 to 1000000"),
        (b"X-Mock-Tokens", b"\xb2", "X-Mock-Tokens must be"),
        (b"X-Mock-Delay", b"soon", "X-Mock-Delay: 'soon' isn't a duration"),
        (b"X-Mock-Delay", b"1h", "at most 600s"),
        (b"X-Mock-Stall", b"300ms", "such as 5:300ms, not '300ms'"),
        (b"X-Mock-Stall", b"x:300ms", "X-Mock-Stall must be a whole number from 0"),
        (b"X-Mock-Stall", b"5:", "X-Mock-Stall: '' isn't a duration"),
        (b"X-Mock-Stall", b"5:1h", "X-Mock-Stall must be at most 600s"),
        (b"X-Mock-Corrupt", b"0", "X-Mock-Corrupt must be a whole number from 1"),
        (b"X-Mock-Share", b"10", "X-Mock-Share must be a percentage, such as 10%, not '10'"),
        (b"X-Mock-Share", b"0%", "X-Mock-Share must be a whole number from 1 to 100"),
        (b"X-Mock-Encoding", b"zstd", "gzip, br or deflate, not 'zstd'"),
        (b"X-Mock-Latency", b"1s", "X-Mock-Latency isn't a header of the mock; there are X-Mock-C"),
    ],
)
def test_a_header_that_cannot_be_obeyed_is_400(name: bytes, value: bytes, message: str) -> None:
    with pytest.raises(Refused, match=message) as raised:
        _read((name, value))
    assert raised.value.status == 400


@settings(deadline=None)
@given(
    st.sampled_from(
        [
            *(b"status", b"delay", b"cut", b"encoding", b"tokens", b"retry-after"),
            *(b"stall", b"corrupt", b"share"),
        ]
    ),
    st.binary(max_size=30),
)
def test_any_value_is_read_or_refused(name: bytes, value: bytes) -> None:
    try:
        assert _read((b"X-Mock-" + name, value)) is not NO_FAULTS
    except Refused as refused:
        assert refused.status == 400
