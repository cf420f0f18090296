"""The last lines of the report: limits, the generator, the machine, and how to do it again."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from rich.cells import cell_len
from rich.text import Text

from llm_proxy.benchmark.precision import format_ms
from llm_proxy.benchmark.report import Report
from llm_proxy.benchmark.terminal_page import Page

_SHOWN_WAIT: Final = 0.05
# A word of a command line, with what is quoted in it.
_WORD: Final = re.compile(r"""(?:[^\s'"\\]|\\.|'[^']*'|"(?:[^"\\]|\\.)*"|['"\\])+""", re.DOTALL)


def show_checks(page: Page, report: Report) -> None:
    if not report.checks:
        return
    page.heading("Limits")
    page.table(
        [
            (
                Text(page.mark(check.passed), style="green" if check.passed else "bold red"),
                Text(check.name, style="" if check.passed else "red"),
                check.message,
            )
            for check in report.checks
        ],
        "llw",
    )


def show_generator(page: Page, report: Report) -> None:
    rig = report.rig
    page.heading("Load generator")
    page.line("; ".join(_generator(report)), hanging=2)
    if rig.verdict == "rig-bound":
        page.line(Text("rig-bound: see above", style="bold red"))


def show_circumstances(page: Page, report: Report) -> None:
    it = report.environment
    load = "" if it.load_average is None else f"; load average {it.load_average[0]:.2f}"
    system = f"{it.system} {it.machine}, {it.cpu} × {it.cpus}, {it.memory_mib / 1024:.3g} GiB{load}"
    programs = f"llm-proxy {it.llm_proxy}, {it.python}, {it.event_loop}"
    page.blank()
    page.line(f"{programs}, {system}", style="dim", hanging=2)
    page.line(f"{report.started_at}, seed {report.seed}", style="dim", hanging=2)
    for i, line in enumerate(command_lines(report.command, page.width - 4)):
        page.verbatim(" " * (2 if i else 0) + line, style="dim")


def command_lines(command: str, width: int) -> list[str]:
    """Broken between words, in the way of a shell: what was said once can be pasted."""
    lines: list[str] = []
    for word in _WORD.findall(command):
        if lines and cell_len(lines[-1]) + 1 + cell_len(word) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return [*(f"{line} \\" for line in lines[:-1]), *lines[-1:]]


def _generator(report: Report) -> Iterator[str]:
    rig = report.rig
    processes = "1 process" if rig.processes == 1 else f"{rig.processes} processes, the busiest"
    yield f"{processes} {rig.cpu_share:.0%} of a core".replace("%", " %")
    if rig.mock_cpu_share is not None:
        yield f"the mock {rig.mock_cpu_share:.0%} of one".replace("%", " %")
    if rig.waited_share >= _SHOWN_WAIT:
        yield f"waited {rig.waited_share:.0%} of the time for a core".replace("%", " %")
    if rig.loop_lag_max_ms:  # else the run was over before it could be seen
        lag = [format_ms(value) for value in (rig.loop_lag_p50_ms, rig.loop_lag_p99_ms)]
        yield f"loop lag p50 {lag[0]}, p99 {lag[1]}, max {format_ms(rig.loop_lag_max_ms)}"
    if rig.late_ms is not None:
        yield f"late sends p50 {format_ms(rig.late_ms.p50)}, p99 {format_ms(rig.late_ms.p99)}"
    if rig.unsent:
        yield f"{rig.unsent:,} never sent"
    if rig.reconnects:
        yield f"{rig.reconnects:,} sent again on a new connection"
