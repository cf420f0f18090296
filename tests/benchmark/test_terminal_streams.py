"""Streams, as printed."""

from __future__ import annotations

import msgspec

from llm_proxy.benchmark.terminal_streams import show_streams
from tests.benchmark.printed import printed, squeezed
from tests.benchmark.reports import make_report, make_stream_report, make_streams


def test_tokens_are_timed_beside_the_direct_ones_and_what_is_added() -> None:
    lines = printed(show_streams, make_stream_report()).splitlines()
    assert [" ".join(line[2:14].split()) for line in lines[3:11]] == [
        *("first token", "direct", "added", "second token", "direct"),
        *("inter-token", "direct", "added"),
    ]


def test_amounts_and_endings_are_told() -> None:
    text = squeezed(printed(show_streams, make_stream_report()))
    assert "60,000 tokens, 6,000 a second; of one stream" in text
    assert "3 stalls in 2 streams, 2 cut, 0 without a proper end" in text
    assert "hung up on" not in text


def test_streams_that_were_hung_up_on_are_counted() -> None:
    report = make_stream_report(streams=make_streams(cancelled=1200))
    assert "1,200 hung up on, as asked" in squeezed(printed(show_streams, report))


def test_only_what_went_wrong_is_in_colour() -> None:
    fine = make_streams(stalls=0, stalled_streams=0, cut=0)
    assert "\x1b[31m" not in printed(show_streams, make_report(streams=fine), is_terminal=True)
    broken = make_streams(broken=4)
    assert "\x1b[31m4 without" in printed(
        show_streams, make_report(streams=broken), is_terminal=True
    )


def test_streams_that_said_nothing_have_no_times() -> None:
    names = ("ttft_ms", "second_token_ms", "inter_token_ms", "tokens_per_second_per_stream")
    silent = msgspec.structs.replace(
        make_streams(tokens=0, tokens_per_second=0.0), **dict.fromkeys(names)
    )
    text = printed(show_streams, make_report(streams=silent))
    assert "p50" not in text
    assert "0 tokens, 0 a second" in squeezed(text)


def test_other_runs_have_no_such_section() -> None:
    assert printed(show_streams, make_report()) == ""
