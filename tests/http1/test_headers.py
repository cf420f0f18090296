from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.http1.headers import line_pattern, list_items, split_line

NAMES = ["connection", "content-length", "te", "x-forwarded-*", "x-real-ip"]
PATTERN = line_pattern(NAMES)
HEAD = (
    b"GET / HTTP/1.1\r\nHost: a\r\nconnection: close\r\nX-Real-IPs: 1\r\nX-REAL-IP:1\r\n"
    b"Te: x\r\nTest: te: 1\r\nX-Forwarded-For:  2 \r\nx-forwarded-: 3\r\nX-Forwarded: 4\r"
)


def test_named_lines_are_cut_whatever_their_case() -> None:
    assert PATTERN.split(HEAD)[1::2] == [
        b"\nconnection: close\r",
        b"\nX-REAL-IP:1\r",
        b"\nTe: x\r",
        b"\nX-Forwarded-For:  2 \r",
        b"\nx-forwarded-: 3\r",
    ]


def test_the_pieces_make_up_the_head() -> None:
    assert b"".join(PATTERN.split(HEAD)) == HEAD


_NAME = st.text("abcdeiknoptx-TEX", min_size=1, max_size=14).map(str.encode)
_VALUE = st.text("ab: ,;te-", max_size=12).map(str.encode)


@given(st.lists(st.tuples(_NAME, _VALUE), max_size=12))
def test_cutting_agrees_with_reading_line_by_line(headers: list[tuple[bytes, bytes]]) -> None:
    lines = [b"\n%b:%b\r" % header for header in headers]
    pieces = PATTERN.split(b"GET / HTTP/1.1\r" + b"".join(lines))
    exact = {name.encode() for name in NAMES if not name.endswith("*")}
    wanted = [
        line
        for line, (name, _) in zip(lines, headers, strict=True)
        if name.lower() in exact or name.lower().startswith(b"x-forwarded-")
    ]
    assert pieces[1::2] == wanted


def test_a_cut_line_splits_into_name_and_value() -> None:
    assert split_line(b"\nContent-Type:  text/plain; a=b:c \r") == (
        b"content-type",
        b"text/plain; a=b:c",
    )
    assert split_line(b"\nEmpty:\r") == (b"empty", b"")


def test_list_values_lose_case_blanks_and_empty_members() -> None:
    assert list_items(b" Close, keep-Alive ,,x") == [b"close", b"keep-alive", b"x"]
