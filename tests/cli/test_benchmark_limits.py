from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llm_proxy.benchmark.report import encode_report
from llm_proxy.cli.benchmark_limits import choose_limits, longest_allowed_s, p99_limits_ms
from llm_proxy.cli.benchmark_options import Given
from llm_proxy.errors import ConfigError, WrongUsage
from tests.benchmark.reports import make_report


def test_several_slo_are_one() -> None:
    limits = choose_limits(Given(slo=["p99=50ms,rps=500", "errors=1%"]), is_stream=False)
    assert [limit.name for limit in limits.slo] == ["p99<=50ms", "rps>=500/s", "errors<=1%"]
    assert (limits.max_error_rate, limits.goodput, limits.old) == (0.01, (), None)


def test_report_compared_with_is_read(tmp_path: Path) -> None:
    old = tmp_path / "old.json"
    old.write_bytes(encode_report(make_report()))
    limits = choose_limits(Given(compare=old, max_regression="p99=10%"), is_stream=False)
    assert (limits.old, limits.old_file) == (make_report(), "old.json")
    assert [limit.metric.name for limit in limits.max_regression] == ["p99"]
    with pytest.raises(ConfigError, match="can't be read"):
        choose_limits(Given(compare=tmp_path / "none.json"), is_stream=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"find_max": True, "slo": ["added.p99=1ms"]}, "--find-max searches with the target alone"),
        ({"frontier": "1ms", "slo": ["added.p99=1ms"]}, "--frontier searches with the target"),
        ({"slo": ["goodput=95%"]}, "a limit on goodput needs --goodput"),
        ({"max_regression": "goodput=5%"}, "a limit on goodput needs --goodput"),
        ({"max_regression": "frontier.5ms=5%"}, "needs --frontier"),
        (
            {"frontier": "1ms,2ms", "slo": ["frontier.5ms=9"]},
            "--frontier doesn't look for frontier.5ms: it finds frontier.1ms, frontier.2ms",
        ),
        ({"max_regression": ""}, "--max-regression: '': a limit is written"),
        ({"goodput": "latency=1s,ttft=5ms"}, "--goodput ttft=5ms needs --stream"),
        ({"max_error_rate": "1"}, "--max-error-rate"),
    ],
)
def test_limits_on_what_is_not_measured_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(WrongUsage, match=message):
        choose_limits(Given(**options), is_stream=False)


def test_streams_may_have_limits_of_streams() -> None:
    limits = choose_limits(Given(goodput="ttft=5ms"), is_stream=True)
    assert [limit.name for limit in limits.goodput] == ["ttft<=5ms"]


def test_longest_time_is_that_of_any_limit() -> None:
    assert longest_allowed_s(Given()) == 0
    assert longest_allowed_s(Given(slo=["p50=2s,errors=1%", "rps=50000"])) == 2
    assert longest_allowed_s(Given(goodput="latency=3s", frontier="100ms,1ms")) == 3
    assert p99_limits_ms(Given(frontier="100ms,1ms")) == (1, 100)
