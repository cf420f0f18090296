"""Streams, as printed."""

from __future__ import annotations

import msgspec

from llm_proxy.benchmark.report import HangUps
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
    assert "1,200 hung up on by the generator" in squeezed(printed(show_streams, report))


def test_hang_ups_that_the_upstream_saw_are_held_against_those_that_were_sent() -> None:
    def lines(seen: int | None, *, is_terminal: bool = False) -> str:
        found = HangUps(sent=1041, seen_upstream=seen)
        report = make_stream_report(hang_ups=found)
        return squeezed(printed(show_streams, report, is_terminal=is_terminal))

    assert "Hang-ups: 1,041 sent, 1,041 seen by the upstream" in lines(1041)
    assert "1,041 sent, this upstream can't be asked" in lines(None)
    assert "\x1b[35m7 seen by the upstream" in lines(7, is_terminal=True)
    assert "Hang-ups" not in squeezed(printed(show_streams, make_stream_report()))


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
