from __future__ import annotations

from html.parser import HTMLParser
from xml.etree import ElementTree

from llm_proxy.benchmark.markup import add, html_document, node


class _Seen(HTMLParser):
    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def test_text_stays_text() -> None:
    evil = '</p><script>alert("1")</script> & \x00'
    seen = _Seen(html_document(node("p", evil, title=evil)))
    assert seen.tags == ["p"]
    assert seen.attributes == [("title", evil.replace("\x00", "\ufffd"))]
    assert seen.text.strip() == evil.replace("\x00", "\ufffd")


def test_elements_and_text_keep_their_order() -> None:
    element = node("p", "a", node("b", "c"), None, "d", "e", node("i"), "f")
    assert ElementTree.tostring(element) == b"<p>a<b>c</b>de<i />f</p>"
    add(element, node("u"), "g")
    assert b"f<u />g" in ElementTree.tostring(element)


def test_names_of_attributes_are_written_with_a_hyphen() -> None:
    element = node("rect", class_="bar", stroke_width=1.23456, viewBox="0 0 1 1", x=3.0)
    assert element.attrib == {
        "class": "bar",
        "stroke-width": "1.23",
        "viewBox": "0 0 1 1",
        "x": "3",
    }


def test_a_document_says_what_it_is() -> None:
    page = html_document(node("html", node("meta", charset="utf-8"), node("td")))
    assert page.startswith(b"<!DOCTYPE html>\n<html>")
    assert b'<meta charset="utf-8">' in page
    assert b"<td></td>" in page
