"""Chunked bodies: cut anywhere they are the same, and what we accept a strict reader accepts."""

from __future__ import annotations

from fuzz.target import Target, must
from llm_proxy.http1.framing import (
    LAST_CHUNK,
    MAX_TRAILER_BYTES,
    ChunkedDecoder,
    FramingError,
    frame_chunk,
)

Outcome = tuple[bytes, bool, bytes] | None  # payload, whether it ended, what followed


def run(data: bytes) -> None:
    seed, body = data[:1], data[1:]
    whole = _decode([body])
    must(_decode(_cut(body, seed[0] if seed else 1)) == whole, "cut elsewhere it is another body")
    if whole is not None:
        must(whole == _by_the_book(body), "a strict reader reads something else")
    pieces = _cut(body, seed[0] if seed else 1)
    framed = b"".join(frame_chunk(piece) for piece in pieces if piece) + LAST_CHUNK
    must(_decode([framed + b"rest"]) == (body, True, b"rest"), "it is not what was framed")


def _cut(data: bytes, step: int) -> list[bytes]:
    step = step % 7 + 1
    return [data[at : at + step] for at in range(0, len(data), step)]


def _decode(pieces: list[bytes]) -> Outcome:
    decoder = ChunkedDecoder()
    payload, rest = b"", b""
    try:
        for piece in pieces:
            if decoder.is_complete:
                rest += piece
            else:
                payload += decoder.feed(piece)
    except FramingError:
        return None
    return payload, decoder.is_complete, decoder.rest + rest


def _by_the_book(data: bytes) -> Outcome:
    """RFC 9112 section 7.1 without extensions, one line after the other."""
    payload = b""
    while True:
        line, end, rest = data.partition(b"\r\n")
        if not end:
            must(line.rstrip(b"\r").isalnum() or not line.rstrip(b"\r"), "a size line of anything")
            return payload, False, b""
        must(line and not line.strip(b"0123456789abcdefABCDEF"), "a size that is no number")
        size = int(line, 16)
        if not size:
            return _trailer(payload, rest)
        if len(rest) < size + 2:
            must(rest[size:] in (b"", b"\r"), "a chunk longer than its size")
            return payload + rest[:size], False, b""
        must(rest[size : size + 2] == b"\r\n", "a chunk longer than its size")
        payload += rest[:size]
        data = rest[size + 2 :]


def _trailer(payload: bytes, data: bytes) -> Outcome:
    """What it says doesn't matter, as long as nobody could see its end elsewhere."""
    lines: list[bytes] = []
    total = len(data)
    while True:
        line, end, data = data.partition(b"\r\n")
        if not end:
            must(total < MAX_TRAILER_BYTES + 4, "a trailer without limit")
            return payload, False, b""
        if not line:
            must(not any(b"\n" in line for line in lines), "a bare LF in a trailer")
            return payload, True, data
        lines.append(line)


TARGET = Target(
    covers=("llm_proxy.http1.framing",),
    run=run,
    words=(b"0\r\n\r\n", b"\r\n", b"5\r\nhello\r\n", b"\n", b";a=b", b"A: b\r\n", b"fffffffffffff"),
    max_bytes=400,
    seeds=(
        b"\x000\r\n\r\n",
        b"\x015\r\nhello\r\n6\r\n world\r\n0\r\n\r\n",
        b"\x025\r\nhello\r\n0\r\nA: b\r\nC: d\r\n\r\nHTTP/1.1",
        b"\x03a\r\n0123456789\r\n",
        b"\x04000000A\r\n0123456789\r\n00\r\n\r\n",
    ),
)
