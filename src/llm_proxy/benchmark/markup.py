"""Elements of a page: whatever text they are given, it stays text."""

from __future__ import annotations

import re
from typing import Final
from xml.etree.ElementTree import Element, tostring

Child = Element | str | None
# What XML 1.0 has no way to write: section 2.2.
_UNWRITABLE: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def node(tag: str, /, *children: Child, **attributes: str | float) -> Element:
    """`class_` is `class`, `stroke_width` `stroke-width`; a child that is None is left out."""
    names = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()}
    element = Element(tag, {name: _attribute(value) for name, value in names.items()})
    add(element, *children)
    return element


def add(element: Element, *children: Child) -> None:
    for child in children:
        if isinstance(child, Element):
            element.append(child)
        elif child is not None:
            _add_text(element, writable(child))


def html_document(root: Element) -> bytes:
    # "html" knows which elements have no end tag, and leaves the style sheet as it is.
    page: bytes = tostring(root, encoding="utf-8", method="html")
    return b"<!DOCTYPE html>\n" + page + b"\n"


def writable(text: str) -> str:
    return _UNWRITABLE.sub("\ufffd", text)


def _add_text(element: Element, text: str) -> None:
    if len(element):
        element[-1].tail = (element[-1].tail or "") + text
    else:
        element.text = (element.text or "") + text


def _attribute(value: str | float) -> str:
    return writable(value) if isinstance(value, str) else f"{round(value, 2):g}"
