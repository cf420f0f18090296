from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_proxy.benchmark.mock_multipart import MultipartParser, boundary_of


class Parts:
    """Remembers the parts it is told about."""

    def __init__(self) -> None:
        self.heads: list[tuple[str, str | None]] = []
        self.bodies: list[bytes] = []

    def start_part(self, name: str, filename: str | None) -> None:
        self.heads.append((name, filename))
        self.bodies.append(b"")

    def part_data(self, data: bytes) -> None:
        self.bodies[-1] += data


def _part(disposition: str, body: bytes) -> bytes:
    return b"--XX\r\nContent-Disposition: %b\r\n\r\n%b\r\n" % (disposition.encode(), body)


def _parse(data: bytes, *, cuts: list[int] | None = None) -> tuple[Parts, MultipartParser]:
    parts = Parts()
    parser = MultipartParser(b"XX", parts)
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts or []), len(data)]
    for start, end in zip(edges, edges[1:], strict=False):
        parser.feed(data[start:end])
    return parts, parser


FORM = (
    _part('form-data; name="purpose"', b"batch")
    + _part('form-data; name="file"; filename="a b.jsonl"', b"line\r\n--X\r\n-\r\n")
    + _part('form-data; name="empty"', b"")
    + b"--XX--\r\nepilogue"
)


@settings(deadline=None)
@given(st.lists(st.integers(0, len(FORM)), max_size=12))
def test_a_form_reads_the_same_wherever_it_is_cut(cuts: list[int]) -> None:
    parts, parser = _parse(FORM, cuts=cuts)
    assert parts.heads == [("purpose", None), ("file", "a b.jsonl"), ("empty", None)]
    assert parts.bodies == [b"batch", b"line\r\n--X\r\n-\r\n", b""]
    assert parser.is_complete


@settings(deadline=None)
@given(st.binary(max_size=400).filter(lambda body: b"\r\n--XX" not in b"\r\n" + body))
def test_a_body_of_any_bytes_comes_through(body: bytes) -> None:
    parts, parser = _parse(_part('form-data; name="file"', body) + b"--XX--", cuts=[50, 60, 61])
    assert parts.bodies == [body]
    assert parser.is_complete


def test_a_large_body_is_passed_on_before_its_end() -> None:
    parts, parser = _parse(_part('form-data; name="file"', bytes(100_000))[:-2])
    assert len(parts.bodies[0]) > 99_000
    assert not parser.is_complete


@pytest.mark.parametrize(
    ("disposition", "expected"),
    [
        ('form-data; name="file"; filename="q\\"q"', ("file", 'q"q')),
        ('form-data; name="file"; filename="ünï.txt"', ("file", "ünï.txt")),
        ("form-data; name=file; filename*=UTF-8''%e2%82%ac.txt", ("file", "€.txt")),
    ],
)
def test_names_are_read_in_every_spelling(disposition: str, expected: tuple[str, str]) -> None:
    parts, _ = _parse(_part(disposition, b""))
    assert parts.heads == [expected]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"--XXoops", "neither CRLF nor --"),
        (b"--XX\r\nContent-Type: text/plain\r\n\r\n", "no Content-Disposition with a name"),
        (b"--XX\r\nContent-Disposition: form-data\r\n\r\n", "no Content-Disposition with a name"),
        (b"--XX\r\nA: " + b"a" * 20_000, "longer than 16384 bytes"),
        (b"--XX\r\nA: " + b"a" * 20_000 + b"\r\n\r\n", "longer than 16384 bytes"),
    ],
)
def test_what_is_not_a_form_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _parse(data)


@settings(deadline=None)
@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=4))
def test_no_bytes_do_anything_but_parse_or_be_refused(data: bytes, cuts: list[int]) -> None:
    try:
        parts, _ = _parse(b"--XX\r\nContent-Disposition:" + data, cuts=cuts)
        assert len(parts.heads) == len(parts.bodies)
    except ValueError as exc:
        assert str(exc)


def test_the_boundary_is_read_from_the_content_type() -> None:
    assert boundary_of('multipart/form-data; boundary="a b"') == b"a b"
    assert boundary_of("Multipart/Form-Data; Boundary=XX") == b"XX"


@pytest.mark.parametrize(
    ("content_type", "message"),
    [
        ("application/json", "expected multipart/form-data, got 'application/json'"),
        ("", "expected multipart/form-data, got ''"),
        ("multipart/form-data", "names no boundary"),
    ],
)
def test_a_type_without_a_boundary_is_refused(content_type: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        boundary_of(content_type)
