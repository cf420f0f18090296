from __future__ import annotations

import contextlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llm_proxy.http1.framing import (
    LAST_CHUNK,
    MAX_TRAILER_BYTES,
    ChunkedDecoder,
    FramingError,
    frame_chunk,
)


def decode(*pieces: bytes) -> tuple[bytes, ChunkedDecoder]:
    decoder = ChunkedDecoder()
    payload = b""
    for piece in pieces:
        if decoder.is_complete:
            decoder.rest += piece
        else:
            payload += decoder.feed(piece)
    return payload, decoder


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in zip(edges, edges[1:], strict=False)]


@given(
    st.lists(st.binary(min_size=1, max_size=300), max_size=8),
    st.lists(st.integers(0, 5000), max_size=12),
    st.sampled_from([b"", b"X: y\r\n", b"A: 1\r\nB: 2\r\n"]),
    st.binary(max_size=20),
)
@example([b"\r\n", b"0\r\n\r\n"], [1, 2, 3, 4, 5, 6, 7], b"", b"GET")
def test_any_cut_gives_the_same_payload_and_rest(
    chunks: list[bytes], places: list[int], trailer: bytes, after: bytes
) -> None:
    framed = b"".join(map(frame_chunk, chunks)) + b"0\r\n" + trailer + b"\r\n"
    payload, decoder = decode(*cut(framed + after, places))
    assert payload == b"".join(chunks)
    assert decoder.is_complete
    assert decoder.rest == after


def test_byte_by_byte_is_no_different() -> None:
    framed = frame_chunk(b"hello") + frame_chunk(b" world") + b"0\r\nT: 1\r\n\r\n"
    payload, decoder = decode(*(framed[i : i + 1] for i in range(len(framed))))
    assert payload == b"hello world"
    assert decoder.is_complete
    assert decoder.rest == b""


@pytest.mark.parametrize("size", [b"5", b"05", b"0000000000000005"])
def test_sizes_may_have_leading_zeros(size: bytes) -> None:
    payload, _ = decode(size + b"\r\nhello\r\n" + LAST_CHUNK)
    assert payload == b"hello"


@pytest.mark.parametrize(
    "data",
    [
        b"5;ext=1\r\nhello\r\n",  # chunk extensions
        b"5 \r\nhello\r\n",
        b" 5\r\nhello\r\n",
        b"+5\r\nhello\r\n",
        b"-5\r\nhello\r\n",
        b"0x5\r\nhello\r\n",
        b"1_0\r\n",
        b"5\nhello\r\n",  # bare LF
        b"5\r\nhello\n",
        b"5\r\nhelloXX",
        b"5\r\nhello\rX",
        b"5\r\nhello world\r\n",  # longer than it says
        b"\r\n",
        b"g\r\n",
        b"5\r\r\nhello\r\n",
        b"00000000000000005\r\nhello\r\n",  # 17 digits
        b"\xef\xbc\x95\r\n",
        b"0\r\nX: y\n\r\n\r\n",  # bare LF in the trailer
    ],
)
def test_malformed_chunks_are_refused_whole_and_byte_by_byte(data: bytes) -> None:
    with pytest.raises(FramingError):
        decode(data)
    with pytest.raises(FramingError):
        decode(*(data[i : i + 1] for i in range(len(data))))


def test_a_size_line_that_never_ends_is_refused_at_once() -> None:
    with pytest.raises(FramingError):
        decode(b"1" * 18)


def test_a_trailer_that_never_ends_is_refused() -> None:
    decoder = ChunkedDecoder()
    decoder.feed(b"0\r\n")
    line = b"X-Trailer: " + b"y" * 1000 + b"\r\n"
    with pytest.raises(FramingError):
        for _ in range(MAX_TRAILER_BYTES // len(line) + 2):
            decoder.feed(line)


@given(st.lists(st.binary(max_size=40), max_size=10))
def test_garbage_never_raises_anything_else(pieces: list[bytes]) -> None:
    with contextlib.suppress(FramingError):
        decode(*pieces)


def test_an_unfinished_body_is_not_complete() -> None:
    payload, decoder = decode(b"5\r\nhel")
    assert payload == b"hel"
    assert not decoder.is_complete
