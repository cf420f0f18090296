"""What an honest load generator must find of an upstream whose behaviour is known; no I/O."""

from __future__ import annotations

import math
import random
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

SHARES = {"p50": 0.5, "p75": 0.75, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p99.9": 0.999, "max": 1.0}
HDR_ERROR = 0.002  # three significant digits, and four in the report
CLOCKS_MS = 0.1  # the upstream notes its times a bit before or after the kernel acts on them


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was expected, and what the report said."""

    what: str
    expected: str
    found: str
    passed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Jitter:
    """Waits of a known distribution: even between two bounds, but for a few slow ones."""

    low_ms: float = 40.0
    high_ms: float = 60.0
    slow_share: float = 0.02
    slow_ms: float = 150.0

    def draw(self, random_source: random.Random) -> float:
        return self.quantile(random_source.random())

    def quantile(self, share: float) -> float:
        fast = 1 - self.slow_share
        if share >= fast:
            return self.slow_ms
        return self.low_ms + (self.high_ms - self.low_ms) * share / fast


def percentile(values: Sequence[float], share: float) -> float:
    """The least value that at least such a share doesn't exceed."""
    ordered = sorted(values)
    return ordered[max(math.ceil(share * len(ordered) - 1e-9), 1) - 1]


def within(what: str, low: float, high: float, found: float | None) -> Finding:
    return Finding(
        what=what,
        expected=f"{low:.3f} to {high:.3f}",
        found="nothing" if found is None else f"{found:.3f}",
        passed=found is not None and low <= found <= high,
    )


def equal(what: str, expected: object, found: object) -> Finding:
    return Finding(
        what=what, expected=str(expected), found=str(found), passed=bool(expected == found)
    )


def match_log(
    what: str,
    log_ms: Sequence[float],
    found: Mapping[str, float] | None,
    *,
    slack_ms: float,
    less_ms: float = CLOCKS_MS,
) -> list[Finding]:
    """Each percentile is that of the upstream's own log, and at most `slack_ms` more.

    Sockets and wake-ups only ever add, so no percentile of a latency is lower than the truth; those
    of gaps may be: what delays one event brings it nearer to the next.
    """
    findings = []
    for name, share in SHARES.items():
        truth = percentile(log_ms, share)
        low, high = truth * (1 - HDR_ERROR) - less_ms, truth * (1 + HDR_ERROR) + slack_ms
        findings.append(within(f"{what} {name}, ms", low, high, (found or {}).get(name)))
    return findings


def match_jitter(
    what: str, jitter: Jitter, found: Mapping[str, float] | None, *, count: int, slack_ms: float
) -> list[Finding]:
    """Each percentile is where the distribution has it, as closely as so many draws can tell."""
    findings = []
    for name, share in SHARES.items():
        low, high = (jitter.quantile(at) for at in share_bounds(count, share))
        low, high = low * (1 - HDR_ERROR) - CLOCKS_MS, high * (1 + HDR_ERROR) + slack_ms
        findings.append(within(f"{what} {name}, ms", low, high, (found or {}).get(name)))
    return findings


def share_bounds(count: int, share: float, *, deviations: float = 4.0) -> tuple[float, float]:
    """Between which shares of the distribution a percentile of `count` draws lies."""
    spread = deviations * (math.sqrt(share * (1 - share) / count) + 1 / count)
    return max(share - spread, 0.0), min(share + spread, 1.0)


def binomial_bounds(trials: int, share: float, *, risk: float = 0.001) -> tuple[int, int]:
    """The counts between which an honest one lies, but for a chance of `risk`."""
    below, low = 0.0, 0
    while (below := below + _binomial(trials, low, share)) < risk / 2:
        low += 1
    above, high = 0.0, trials
    while (above := above + _binomial(trials, high, share)) < risk / 2:
        high -= 1
    return low, high


def _binomial(trials: int, count: int, share: float) -> float:
    return math.comb(trials, count) * share**count * (1 - share) ** (trials - count)


def count_at_most(what: str, trials: int, share: float, found: int) -> Finding:
    """How many of the trials did what each does with this chance at most."""
    high = binomial_bounds(trials, share)[1]
    return Finding(
        what=f"{what}, of {trials}",
        expected=f"{high} at most",
        found=str(found),
        passed=found <= high,
    )


def count_within(what: str, trials: int, share: float, found: int) -> Finding:
    """How many of the trials did what each does with this chance."""
    low, high = binomial_bounds(trials, share)
    return Finding(
        what=f"{what}, of {trials}",
        expected=f"{low} to {high} (about {share * trials:.0f})",
        found=str(found),
        passed=low <= found <= high,
    )


def frozen_percentile(share: float, *, freeze_ms: float, duration_ms: float) -> float:
    """Of the latency, in ms, when an even open load meets one freeze: arrivals wait for its end."""
    return max(freeze_ms - (1 - share) * duration_ms, 0.0)


def frozen_count(rate: float, *, freeze_ms: float, at_least_ms: float) -> float:
    """How many arrivals of an open load are held that long by a freeze."""
    return rate * max(freeze_ms - at_least_ms, 0.0) / 1000


def count_at_least(values: Sequence[float], bound: float) -> int:
    ordered = sorted(values)
    return len(ordered) - bisect_left(ordered, bound)
