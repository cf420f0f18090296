"""Content codings undone piece by piece: gzip, deflate (zlib and raw), br, and several in a row."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import Final, Protocol

import brotli

PIECE: Final = 256 << 10  # bytes that one step puts out; brotli may double it
# A bomb is stopped here. Event streams shrink to a tenth, and deflate's best is a thousandth.
_FREE_OUTPUT: Final = 16 << 20
_MAX_RATIO: Final = 100
_MAX_CODINGS: Final = 3
_GZIP_BITS: Final = 31
_ZLIB_BITS: Final = 15
_RAW_BITS: Final = -15
# Estimates of what a half-read body holds in its window.
_INFLATE_COST: Final = 64 << 10
_BROTLI_COST: Final = 4 << 20


class _Bomb(Exception):
    pass


class _Coding(Protocol):
    cost: int

    def pieces(self, data: bytes) -> Iterator[bytes]: ...


class _Inflate:
    cost = _INFLATE_COST

    def __init__(self, bits: int) -> None:
        self._bits = bits
        self._stream = zlib.decompressobj(bits)

    def pieces(self, data: bytes) -> Iterator[bytes]:
        piece = b""
        while data or len(piece) == PIECE:  # a full piece: zlib may hold more without input
            piece = self._stream.decompress(data, PIECE)
            if piece:
                yield piece
            if self._stream.eof:  # RFC 1952 section 2.2: another member may follow
                data = self._stream.unused_data
                self._stream = zlib.decompressobj(self._bits)
            else:
                data = self._stream.unconsumed_tail


class _Deflate:
    """RFC 9110 section 8.4.1.2 means zlib; some servers send it raw, so the header decides."""

    cost = _INFLATE_COST

    def __init__(self) -> None:
        self._head = b""
        self._inflate: _Inflate | None = None

    def pieces(self, data: bytes) -> Iterator[bytes]:
        if self._inflate is None:
            data = self._head = self._head + data
            if len(data) < 2:
                return
            is_zlib = data[0] & 0x0F == 8 and int.from_bytes(data[:2]) % 31 == 0
            self._inflate = _Inflate(_ZLIB_BITS if is_zlib else _RAW_BITS)
        yield from self._inflate.pieces(data)


class _Brotli:
    cost = _BROTLI_COST

    def __init__(self) -> None:
        self._stream = brotli.Decompressor()

    def pieces(self, data: bytes) -> Iterator[bytes]:
        piece = self._stream.process(data, output_buffer_limit=PIECE)
        while piece:
            yield piece
            if len(piece) < PIECE:  # the limit was not what stopped it
                return
            piece = self._stream.process(b"", output_buffer_limit=PIECE)


_CODINGS: Final[dict[str, Callable[[], _Coding]]] = {
    "gzip": lambda: _Inflate(_GZIP_BITS),
    "x-gzip": lambda: _Inflate(_GZIP_BITS),
    "deflate": _Deflate,
    "br": _Brotli,
}


class Decoder:
    """Undoes one body's codings; after the first broken byte it puts out nothing more."""

    def __init__(self, content_encoding: str) -> None:
        names = [name.strip().lower() for name in content_encoding.split(",")]
        names = [name for name in names if name not in ("", "identity")]
        self._is_broken = len(names) > _MAX_CODINGS or any(name not in _CODINGS for name in names)
        # RFC 9110 section 8.4: listed in the order they were applied.
        self._stages = (
            [] if self._is_broken else [_Stage(_CODINGS[name]()) for name in reversed(names)]
        )
        self.cost = sum(stage.cost for stage in self._stages)

    def decode(self, data: bytes) -> Iterator[bytes]:
        """Never raises: a body that is cut or broken gives what came before."""
        if self._is_broken:
            return
        pieces = iter((data,))
        for stage in self._stages:
            pieces = stage.run(pieces, more_room=_MAX_RATIO * len(data))
        try:
            yield from pieces
        except (zlib.error, brotli.error, _Bomb):
            self._is_broken = True


class _Stage:
    """One coding, with what went through it so far."""

    def __init__(self, coding: _Coding) -> None:
        self.cost = coding.cost
        self._coding = coding
        self._room = _FREE_OUTPUT

    def run(self, pieces: Iterator[bytes], *, more_room: int) -> Iterator[bytes]:
        self._room += more_room
        for coded in pieces:
            for piece in self._coding.pieces(coded):
                self._room -= len(piece)
                if self._room < 0:
                    raise _Bomb
                yield piece
