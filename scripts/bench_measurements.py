"""The runs that compare the sides, and the medians of their rounds."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench_runs import Report, direct_to, run_benchmark
from bench_sides import MODEL, Side

Figures = dict[str, Any]
CONNECTIONS = (10, 64)
STREAMS = 32  # at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Amount:
    rounds: int
    seconds: float

    @property
    def duration(self) -> tuple[str, str]:
        return ("--duration", f"{self.seconds:g}s")


def measure(sides: Sequence[Side], direct: Side, amount: Amount) -> dict[str, Figures]:
    """By side. Each round measures every side, and each begins with another one."""
    rounds: dict[str, list[Figures]] = {side.name: [] for side in sides}
    for number in range(amount.rounds):
        at = number % len(sides)
        for side in (*sides[at:], *sides[:at]):
            print(f"  round {number + 1} of {amount.rounds}: {side.name}", file=sys.stderr)
            rounds[side.name].append(_measure_side(side, direct, amount))
    return {name: _medians(figures) for name, figures in rounds.items()}


def _measure_side(side: Side, direct: Side, amount: Amount) -> Figures:
    figures: Figures = {"problems": []}
    if side is not direct:
        figures |= _added(side, direct, amount)
    for connections in CONNECTIONS:
        report = _run(side, "-c", connections, *amount.duration, *_watch(side))
        figures |= _load_figures(report, f"c{connections}")
        figures["problems"] += _problems(report)
    streams = _run(side, "--stream", "-c", STREAMS, *amount.duration, *_watch(side))
    figures["problems"] += _problems(streams)
    figures["streams_tokens_per_second"] = streams["streams"]["tokens_per_second"]
    if streams["process"]:
        spent = streams["process"]["cpu_s"] / max(streams["streams"]["tokens"], 1)
        figures["streams_cpu_us_per_token"] = spent * 1e6
    return figures


def _added(side: Side, direct: Side, amount: Amount) -> Figures:
    """One connection, requests direct and proxied in turns; then the same with streams."""
    paired = (*direct_to(direct.url), "-c", 1, *amount.duration)
    plain, streams = _run(side, *paired), _run(side, "--stream", *paired)
    return {
        "added_ms": plain["added_latency_ms"]["typical"],
        "added_ci95_ms": plain["added_latency_ms"]["ci95"],
        "added_ttft_ms": streams["added_ttft_ms"]["typical"],
        "added_inter_token_ms": streams["added_inter_token_ms"]["typical"],
        "same_bytes": plain["fidelity"]["verdict"] == streams["fidelity"]["verdict"] == "equal",
        "problems": _problems(plain) + _problems(streams),
    }


def _load_figures(report: Report, prefix: str) -> Figures:
    figures = {
        f"{prefix}_rps": report["requests_per_second"],
        f"{prefix}_p50_ms": report["latency_ms"]["p50"],
        f"{prefix}_p99_ms": report["latency_ms"]["p99"],
    }
    if usage := report["process"]:
        figures[f"{prefix}_cpu_us"] = usage["cpu_us_per_request"]
        figures["memory_mib"] = usage["memory_peak_mib"]
    return figures


def _problems(report: Report) -> list[str]:
    """A sentence for each run that had errors, or whose figures are the generator's own."""
    problems = []
    if kinds := [f"{number} {kind}" for kind, number in report["error_kinds"].items() if number]:
        problems.append(f"errors: {', '.join(kinds)} of {report['requests']} requests")
    if report["rig"]["verdict"] != "ok":
        problems.append(f"rig-bound: {'; '.join(report['rig']['reasons'])}")
    return problems


def _run(side: Side, *arguments: object) -> Report:
    options = ("--base-url", side.url, "--model", MODEL, "--max-error-rate", "100%")
    return run_benchmark(*options, *arguments, token=side.token)


def _watch(side: Side) -> tuple[object, ...]:
    return () if side.pid is None else ("--pid", side.pid)


def _medians(rounds: Sequence[Figures]) -> Figures:
    """Of each figure; with what went wrong, and whether the bytes were the same, in all of them."""
    figures: Figures = {"rounds": list(rounds)}
    for name, value in rounds[0].items():
        values = [one[name] for one in rounds]
        if name == "problems":
            figures[name] = [problem for problems in values for problem in problems]
        elif name == "same_bytes":
            figures[name] = all(values)
        elif name == "added_ci95_ms":
            figures[name] = [min(low for low, _ in values), max(high for _, high in values)]
        elif isinstance(value, int | float):
            figures[name] = statistics.median(values)
    return figures
