"""The section of docs/performance.md that scripts/bench writes, as Markdown."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench_sides import Side

Figures = Mapping[str, Any]
MICRO = 1000  # milliseconds to microseconds
NOT_MEASURED = "–"

Row = tuple[str, Callable[[Figures], str]]


def replace_section(path: Path, name: str, text: str) -> None:
    """What stands between `<!-- NAME:begin -->` and `<!-- NAME:end -->` of a document."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    document = path.read_text()
    if document.count(begin) != 1 or document.count(end) != 1:
        raise SystemExit(f"{path} needs the lines {begin} and {end}, once each")
    before, _, rest = document.partition(begin)
    _, _, after = rest.partition(end)
    path.write_text(f"{before}{begin}\n{text.strip()}\n{end}{after}")


def comparison(
    sides: Sequence[Side], figures: Mapping[str, Figures], about: Mapping[str, Any]
) -> str:
    names = ["", *(f"{side.name} {side.version}".strip() for side in sides)]
    measured = [
        [title, *(cell(figures[side.name]) for side in sides)] for title, cell in _rows(figures)
    ]
    features = [
        [name, *(side.switched_on[name] for side in sides)] for name in sides[0].switched_on
    ]
    problems = [line for name, figure in figures.items() for line in _problem_lines(name, figure)]
    return "\n\n".join(
        [
            _about(about),
            _table(names, measured),
            "What is switched on in each:",
            _table(names, features),
            *(["What was not as it should be:", "\n".join(problems)] if problems else []),
        ]
    )


def _about(about: Mapping[str, Any]) -> str:
    return (
        f"{about['date']}, {about['cpus']} × {about['cpu']}, Python {about['python']}, "
        f"{about['system'].split()[0]}; {_rounds(about)}, {about['seconds']:g} s for each "
        "figure, every side forwarding to the same `llm-proxy mock`."
    )


def _problem_lines(name: str, figures: Figures) -> list[str]:
    """One for each kind of problem, with the first of its kind."""
    kinds: dict[str, list[str]] = {}
    for problem in figures["problems"]:
        kind, _, detail = problem.partition(": ")
        kinds.setdefault(kind, []).append(detail)
    return [
        f"- {name}: {kind} in {len(details)} run{'s' * (len(details) > 1)}, such as {details[0]}"
        for kind, details in kinds.items()
    ]


def _rounds(about: Mapping[str, Any]) -> str:
    return "one round" if about["rounds"] == 1 else f"medians of {about['rounds']} rounds"


def _rows(figures: Mapping[str, Figures]) -> list[Row]:
    loads = sorted({name for one in figures.values() for name in one if _LOAD.match(name)})
    connections = sorted(int(_LOAD.match(name)[1]) for name in loads)  # type: ignore[index]
    return [
        ("added latency, 1 connection, µs", _number("added_ms", MICRO)),
        ("… 95 % intervals of all rounds, µs", _interval),
        *((f"requests/s, {count} connections", _number(f"c{count}_rps")) for count in connections),
        *((f"… median, ms, {count}", _number(f"c{count}_p50_ms")) for count in connections),
        *(
            (f"… 99th percentile, ms, {count}", _number(f"c{count}_p99_ms"))
            for count in connections
        ),
        *((f"CPU a request, µs, {count}", _number(f"c{count}_cpu_us")) for count in connections),
        ("memory under load, MiB", _number("memory_mib")),
        ("added to the first token of a stream, µs", _number("added_ttft_ms", MICRO)),
        ("added between tokens, µs", _number("added_inter_token_ms", MICRO)),
        ("tokens/s, 32 streams", _number("streams_tokens_per_second")),
        ("CPU a token, µs", _number("streams_cpu_us_per_token")),
        ("answers are the same bytes as direct", _same_bytes),
    ]


_LOAD = re.compile(r"c(\d+)_rps$")


def _number(name: str, times: float = 1) -> Callable[[Figures], str]:
    def cell(figures: Figures) -> str:
        value = figures.get(name)
        return NOT_MEASURED if value is None else three_digits(value * times)

    return cell


def three_digits(value: float) -> str:
    """With no more of them than one machine's figures deserve."""
    if value == 0 or abs(value) < 0.005:
        return "0"
    if abs(value) >= 100:
        digits = len(str(int(abs(value)))) - 3
        return f"{round(value, -digits):,.0f}"
    return f"{value:.3g}"


def _interval(figures: Figures) -> str:
    if "added_ci95_ms" not in figures:
        return NOT_MEASURED
    return " to ".join(three_digits(bound * MICRO) for bound in figures["added_ci95_ms"])


def _same_bytes(figures: Figures) -> str:
    return {None: NOT_MEASURED, True: "yes", False: "no"}[figures.get("same_bytes")]


def generator_section(rows: Iterable[Figures], about: Mapping[str, Any]) -> str:
    cells = [
        [
            row["name"],
            three_digits(row["rps"]),
            three_digits(row["p50_us"]),
            three_digits(row["p99_us"]),
        ]
        for row in rows
    ]
    head = ["generator", "requests/s, 64 connections", "median, µs, 1 connection", "p99, µs, 1"]
    return "\n\n".join(
        [
            f"{about['date']}, {about['cpu']}, Python {about['python']}; each generator with all "
            "its processes on one core, nginx with `return 200` on another; "
            f"{_rounds(about)} of {about['seconds']:g} s.",
            _table(head, cells),
        ]
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
