"""A drawing of the HTML report, which says what it shows to those who can't see it, too."""

from __future__ import annotations

from xml.etree.ElementTree import Element

from llm_proxy.benchmark.markup import node
from llm_proxy.benchmark.svg_axes import HEIGHT, WIDTH


def drawing(title: str, *, height: float = HEIGHT, **attributes: str) -> Element:
    """Empty; `title` is in it for screen readers and pointers."""
    return node(
        "svg",
        node("title", title),
        viewBox=f"0 0 {WIDTH:g} {height:g}",
        role="img",
        aria_label=title,
        **attributes,
    )


def figure(title: str, note: str, chart: Element) -> Element:
    caption = node("figcaption", node("strong", title), " ", node("span", note))
    return node("figure", caption, chart)
