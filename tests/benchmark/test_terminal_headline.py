"""The first lines of the report."""

from __future__ import annotations

import msgspec
import pytest

from llm_proxy.benchmark.terminal_headline import show_headline
from tests.benchmark.printed import printed, squeezed
from tests.benchmark.reports import (
    make_added,
    make_goodput,
    make_report,
    make_rig,
    make_side,
    make_workload,
)

LONG = "http://a-long-host-name.internal.example.com:8443/" + "prefix/" * 12


def test_it_names_the_target_the_load_and_the_main_figures() -> None:
    text = squeezed(printed(show_headline, make_report()))
    assert "POST http://127.0.0.1:8080/v1/chat/completions" in text
    assert "closed, 10 connections, 10 s" in text
    assert "in turns with http://127.0.0.1:9090 (direct)" in text
    assert "200 requests/s p50 520 µs p99 1.0 ms 2 of 2,000 failed (0.1 %)" in text


def test_goodput_stands_with_its_limits_and_that_of_the_baseline() -> None:
    report = make_report(goodput=make_goodput())
    text = squeezed(printed(show_headline, report))
    assert "goodput 97.3 %: 195 requests/s with latency<=50ms, ttft<=200ms" in text
    direct = make_side(median_ms=0.4, goodput=make_goodput(share=0.9996))
    paired = msgspec.structs.replace(report, direct=direct)
    assert "97.3 % (direct 99.96 %): 195" in squeezed(printed(show_headline, paired))
    assert "goodput" not in printed(show_headline, make_report())


def test_what_is_added_stands_with_its_certainty() -> None:
    text = squeezed(printed(show_headline, make_report()))
    assert "llm-proxy adds 110 µs to the latency (95 % 101 to 119 µs, p < 0.001)" in text


def test_bounds_in_two_units_name_both() -> None:
    added = make_added(1.0)
    text = squeezed(printed(show_headline, make_report(added_latency_ms=added)))
    assert "95 % 920 µs to 1.08 ms" in text


def test_a_difference_that_was_not_found_is_not_claimed() -> None:
    added = make_added(0.002, found=False)
    text = squeezed(printed(show_headline, make_report(added_latency_ms=added)))
    assert "No difference was found in the latency: +2 µs (95 % -4 to 8 µs, p = 0.47)" in text
    assert "adds" not in text


def test_too_few_pairs_are_called_so() -> None:
    few = msgspec.structs.replace(make_added(0.11, found=False), count=20, blocks=4, p_value=1.0)
    text = squeezed(printed(show_headline, make_report(added_latency_ms=few)))
    assert "Too few pairs to find a difference in the latency: 20, typically +100 µs" in text
    assert "adds" not in text


def test_a_proxy_that_is_faster_is_said_to_be() -> None:
    report = make_report(added_latency_ms=make_added(-0.11))
    assert "llm-proxy takes 110 µs off the latency" in squeezed(printed(show_headline, report))


def test_a_target_of_others_is_not_called_llm_proxy() -> None:
    report = make_report(workload=make_workload(is_throwaway=False))
    text = squeezed(printed(show_headline, report))
    assert "The proxy adds" in text
    assert "built-in mock" not in text


def test_what_takes_turns_and_what_is_hung_up_on_is_told() -> None:
    report = make_report(workload=make_workload(bodies=12, tokens=3, cancel_rate=0.1))
    text = squeezed(printed(show_headline, report))
    assert "12 bodies in turn; 3 tokens in turn; 10 % of the streams hung up on" in text


def test_a_bound_rig_is_warned_of_before_the_figures() -> None:
    rig = make_rig(verdict="rig-bound", reasons=("It used 97 % of a core.",))
    text = printed(show_headline, make_report(rig=rig))
    assert text.index("RIG-BOUND") < text.index("97 % of a core") < text.index("requests/s")


def test_an_interrupted_run_says_so() -> None:
    assert "Interrupted" in printed(show_headline, make_report(interrupted=True))


def test_a_run_without_requests_has_no_percentiles() -> None:
    report = make_report(
        requests=0, errors=0, requests_per_second=0.0, latency_ms=None, added_latency_ms=None
    )
    text = squeezed(printed(show_headline, report))
    assert "0 requests/s no request ended" in text
    assert "p50" not in text


def test_no_errors_are_no_alarm() -> None:
    text = printed(show_headline, make_report(errors=0, error_rate=0.0), is_terminal=True)
    assert "no errors in 2,000" in text
    assert "\x1b[1;31m" not in text


@pytest.mark.parametrize("width", [60, 80, 120])
def test_long_addresses_fit_and_lose_nothing(width: int) -> None:
    report = make_report(workload=make_workload(base_url=LONG, direct_url=LONG))
    text = printed(show_headline, report, width=width)
    assert "".join(text.split()).count(LONG) == 2
