"""What is asked of a target while its highest rates are searched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from llm_proxy.benchmark import find_max, frontier
from llm_proxy.benchmark.keeping_pace import shortfall
from llm_proxy.benchmark.metric import ERRORS
from llm_proxy.benchmark.plan import Open, Plan
from llm_proxy.benchmark.rate_search import LOWEST_RATE, Keeps
from llm_proxy.benchmark.report import Check, Probe
from llm_proxy.benchmark.results import Results
from llm_proxy.benchmark.thresholds import Threshold, check_error_rate

# What a probe holds at least, on average: of one without a request nothing is known. One of five
# Poisson arrivals is empty once in 150 times.
_FEWEST: Final = {"constant": 1.0, "poisson": 5.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """Of --find-max or, with limits of the p99 latency, of --frontier."""

    thresholds: tuple[Threshold, ...]
    max_error_rate: float
    first_rate: float
    p99_limits_ms: tuple[float, ...] = ()  # ascending

    @property
    def slo(self) -> list[str]:
        """Names of what every rate must meet."""
        names = [threshold.name for threshold in self._of_probes]
        return names or [Threshold(metric=ERRORS, limit=self.max_error_rate).name]

    @property
    def limits(self) -> list[Keeps]:
        found = [frontier.keeps_p99(limit_ms) for limit_ms in self.p99_limits_ms]
        return found or [find_max.meets_all]

    @property
    def most_probes(self) -> int:
        return frontier.MOST_PROBES if self.p99_limits_ms else find_max.MOST_PROBES

    def lowest_rate(self, load: Open) -> float:
        """That a search goes down to; `load` is that of one probe."""
        return max(LOWEST_RATE, _FEWEST[load.arrivals] / load.duration_s)

    def title(self, limit: int) -> str:
        """What a probe is for, before its rate."""
        if not self.p99_limits_ms:
            return ""
        return f"frontier: p99 <= {frontier.limit_text(self.p99_limits_ms[limit])}, "

    def judge(self, plan: Plan, results: Results) -> Probe:
        """Of a run at one rate."""
        assert isinstance(plan.load, Open)
        missed = [check.message for check in self._checks(results) if not check.passed]
        if not results.side.requests:
            missed = ["no request was due: the probe is too short for this rate (--duration)"]
        elif reason := shortfall(results.series, plan.load):
            missed.append(reason)
        return Probe(
            rate=plan.load.start_rate,
            requests_per_second=results.side.requests_per_second,
            passed=not missed,
            reason="; ".join(missed),
            latency_ms=results.side.latency_ms,
            rig_bound=results.rig.verdict == "rig-bound",
        )

    @property
    def _of_probes(self) -> list[Threshold]:
        return [threshold for threshold in self.thresholds if not threshold.metric.is_of_search]

    def _checks(self, results: Results) -> list[Check]:
        checks = [threshold.check(results) for threshold in self._of_probes]
        return [*checks, check_error_rate(results.side, self.max_error_rate)]
