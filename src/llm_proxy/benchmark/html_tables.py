"""Tables and short sentences of the HTML report."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final
from xml.etree.ElementTree import Element

from llm_proxy.benchmark.certainty import column, spreads
from llm_proxy.benchmark.markup import Child, node
from llm_proxy.benchmark.precision import format_ms
from llm_proxy.benchmark.report import PERCENTILES, Added, Distribution, Spread

_STATISTICS: Final = ("mean", *PERCENTILES, "max")


def section(title: str, *content: Child, class_: str = "") -> Element:
    return node("section", node("h2", title), *content, class_=class_)


def table(head: Sequence[str], rows: Iterable[Sequence[Child]]) -> Element:
    """The first column names the row. Scrolls by itself where it is too wide."""
    top = node("tr", *(node("th", text, scope="col") for text in head))
    body = node("tbody", *(_row(cells) for cells in rows))
    class_ = "scroll" if len(head) > 4 else "scroll narrow"
    return node("div", node("table", node("thead", top), body), class_=class_)


def distributions(
    rows: Mapping[str, Distribution | None], *, known: Mapping[str, float] | None = None
) -> Element:
    """Those that were measured, a row each; `known` as `spreads` takes it, for all of them."""
    return table(
        ["", *_STATISTICS],
        [[name, *_figures(it, spreads(it, known))] for name, it in rows.items() if it is not None],
    )


def _figures(times: Distribution, spread: Mapping[str, Spread]) -> Iterator[str]:
    for name in _STATISTICS:
        yield format_ms(column(times, name), spread[name], signed=isinstance(times, Added))


def facts(pairs: Mapping[str, Child]) -> Element:
    """Names and what they are; those that are None are left out."""
    rows = (
        node("div", node("dt", name), node("dd", value))
        for name, value in pairs.items()
        if value is not None
    )
    return node("dl", *rows)


def counted(number: int, noun: str) -> str:
    """`1 body` where the noun is "body|bodies"."""
    one, many = noun.split("|") if "|" in noun else (noun, f"{noun}s")
    return f"{number:,} {one if number == 1 else many}"


def mark(passed: bool) -> Element:
    """Never by its colour alone."""
    return node("span", "✓ ok" if passed else "✗ failed", class_="pass" if passed else "fail")


def difference(what: str, added: Added) -> Element:
    """What the statistics say, in one sentence."""
    low, high = added.ci95
    sure = Spread(low=low, high=high)
    reach = f"{format_ms(low, sure)} to {format_ms(high, sure)}"
    interval = f"95 %: {reach}, {_probability(added.p_value)}"
    if added.is_found:
        word = "adds" if added.typical >= 0 else "takes away"
        amount = node("strong", format_ms(abs(added.typical), sure))
        return node("p", f"The proxy {word} ", amount, f" {what} ({interval}).")
    return node("p", node("strong", "No difference was found"), f" {what} ({interval}).")


def _probability(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def _row(cells: Sequence[Child]) -> Element:
    return node("tr", node("th", cells[0], scope="row"), *(node("td", cell) for cell in cells[1:]))
