"""The last lines of the report."""

from __future__ import annotations

import shlex

import pytest

from llm_proxy.benchmark.report import Check
from llm_proxy.benchmark.terminal_ending import (
    command_lines,
    show_checks,
    show_circumstances,
    show_generator,
)
from tests.benchmark.printed import printed, squeezed
from tests.benchmark.reports import make_distribution, make_environment, make_report, make_rig


def test_limits_say_whether_they_were_kept() -> None:
    checks = (
        Check(kind="slo", name="p99<=1ms", passed=False, message="p99 is 1.07 ms, over 1 ms"),
        Check(kind="slo", name="p50<=1ms", passed=True, message="p50 is 520 µs, within 1 ms"),
    )
    report = make_report(checks=checks)
    text = squeezed(printed(show_checks, report))
    assert "FAIL p99<=1ms p99 is 1.07 ms, over 1 ms ok p50<=1ms p50 is" in text
    text = printed(show_checks, report, is_terminal=True)
    assert "✗" in text and "✓" in text


def test_no_limits_are_no_section() -> None:
    assert printed(show_checks, make_report(checks=())) == ""


def test_the_generator_says_how_it_fared() -> None:
    text = squeezed(printed(show_generator, make_report()))
    assert "1 process 31 % of a core; loop lag p50 20.0 µs, p99 200 µs, max 1.40 ms" in text
    assert "late" not in text and "sent" not in text and "rig-bound" not in text


def test_what_went_wrong_in_the_generator_is_told() -> None:
    rig = make_rig(
        verdict="rig-bound",
        processes=2,
        late_ms=make_distribution(2.0),
        unsent=1200,
        reconnects=3,
    )
    text = squeezed(printed(show_generator, make_report(rig=rig)))
    assert "2 processes, the busiest 31 % of a core" in text
    assert "late sends p50 2.01 ms" in text
    assert "1,200 never sent; 3 sent again on a new connection rig-bound" in text


def test_waiting_for_a_core_and_the_mock_are_told_where_they_matter() -> None:
    rig = make_rig(mock_cpu_share=0.62, waited_share=0.31)
    text = squeezed(printed(show_generator, make_report(rig=rig)))
    assert "31 % of a core; the mock 62 % of one; waited 31 % of the time for a core;" in text
    text = squeezed(printed(show_generator, make_report(rig=make_rig(waited_share=0.04))))
    assert "mock" not in text and "waited" not in text


def test_machine_seed_and_command_are_in_every_report() -> None:
    text = squeezed(printed(show_circumstances, make_report()))
    assert "llm-proxy 0.5.0, CPython 3.11.9, uvloop 0.20.0, Linux 6.8 x86_64" in text
    assert "Example CPU 3000 × 2, 7.76 GiB; load average 0.40" in text
    assert "2026-03-01T12:00:00Z, seed 42" in text
    assert text.endswith("llm-proxy benchmark --concurrency 10 --token sk-…")


def test_a_machine_that_tells_no_load_is_fine() -> None:
    report = make_report(environment=make_environment(load_average=None))
    assert "average" not in printed(show_circumstances, report)


@pytest.mark.parametrize(
    "command",
    [
        "llm-proxy benchmark --data '{\"a b\": \"c d\"}' --header 'X: y z' --seed 1",
        'llm-proxy benchmark --data "it\'s \\"quoted\\" here" --model a\\ b',
        "llm-proxy benchmark --base-url 'http://exämple.com/日本語' --concurrency 10 -n 5",
    ],
)
@pytest.mark.parametrize("width", [10, 30, 200])
def test_a_broken_command_is_the_same_command(command: str, width: int) -> None:
    pasted = "\n".join(command_lines(command, width))
    # A shell takes such an end of line for nothing; shlex doesn't know.
    assert shlex.split(pasted.replace("\\\n", "")) == shlex.split(command)


def test_a_command_is_broken_only_where_it_must_be() -> None:
    assert command_lines("a b c", 80) == ["a b c"]
    assert command_lines("a b c", 3) == ["a b \\", "c"]
    assert command_lines("it's unfinished", 80) == ["it's unfinished"]
    assert command_lines("", 80) == []


def test_a_run_too_short_for_a_look_at_the_loop_says_nothing_of_it() -> None:
    rig = make_rig(loop_lag_p50_ms=0.0, loop_lag_p99_ms=0.0, loop_lag_max_ms=0.0)
    assert "loop lag" not in printed(show_generator, make_report(rig=rig))
