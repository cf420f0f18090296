"""How the requests ended: statuses, errors and what to do about them, bytes, fidelity."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from rich.text import Text

from llm_proxy.benchmark.error_hints import error_hint
from llm_proxy.benchmark.plan import LANES
from llm_proxy.benchmark.report import Fidelity, Report, Side
from llm_proxy.benchmark.terminal_page import Page
from llm_proxy.benchmark.text_table import Cell

_MOST_CODES: Final = 8
_SIZES: Final = ("B", "kB", "MB", "GB", "TB")
_CANCELLED: Final = "hung up on by the generator"
_CLASSES: Final = ("4xx", "5xx")  # errors that the status codes tell apart


def show_answers(page: Page, report: Report) -> None:
    if not report.requests:
        return
    sides: list[Side] = [report] if report.direct is None else [report, report.direct]
    page.heading("Answers")
    head = ("", *LANES, "") if len(sides) > 1 else ()
    page.table(_rows(sides), "l" + "r" * len(sides) + "w", head=head)
    if report.fidelity is not None:
        page.line(_fidelity(report.fidelity), hanging=2)


def format_size(count: int) -> str:
    """`412 B`, `1.78 MB`."""
    size, unit = float(count), 0
    while size >= 999.5 and unit < len(_SIZES) - 1:
        size, unit = size / 1000, unit + 1
    return f"{size:.3g} {_SIZES[unit]}"


def _rows(sides: list[Side]) -> Iterator[list[Cell]]:
    codes = _most_frequent([side.status_codes for side in sides])
    for code in sorted(codes):
        yield _row(code, [side.status_codes for side in sides])
    for kind in dict.fromkeys(kind for side in sides for kind in side.error_kinds):
        if kind not in _CLASSES:
            yield _row(kind, [side.error_kinds for side in sides])
    if any(side.cancelled for side in sides):
        yield ["cancelled", *(f"{side.cancelled:,}" for side in sides), _CANCELLED]
    yield ["sent", *(format_size(side.bytes_sent) for side in sides), ""]
    yield ["received", *(format_size(side.bytes_received) for side in sides), ""]


def _row(name: str, counts: list[dict[str, int]]) -> list[Cell]:
    hint = error_hint(name)
    style = "red" if hint else ""
    numbers = [f"{count.get(name, 0):,}" for count in counts]
    return [*(Text(cell, style=style) for cell in (name, *numbers)), hint]


def _most_frequent(counts: list[dict[str, int]]) -> list[str]:
    total = {code: sum(count.get(code, 0) for count in counts) for one in counts for code in one}
    return sorted(total, key=lambda code: total[code], reverse=True)[:_MOST_CODES]


def _fidelity(fidelity: Fidelity) -> Text:
    if fidelity.verdict == "equal":
        text = f"{fidelity.compared:,} answers compared with direct ones: the same, byte for byte"
        return Text.assemble("fidelity  ", (text, "green"))
    if fidelity.verdict == "not comparable":
        return Text(f"fidelity  not comparable: {fidelity.reason or 'nothing was compared'}")
    which = ", ".join(str(body) for body in fidelity.bodies)
    text = f"{fidelity.different:,} of {fidelity.compared:,} answers DIFFER from the direct ones"
    where = f" (request bodies, counted from 0: {which})" if which else ""
    return Text.assemble("fidelity  ", (text, "bold red"), where)
