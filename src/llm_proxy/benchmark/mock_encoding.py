"""Compressed bodies, flushed after each piece so that an event can be read when it arrives."""

from __future__ import annotations

import zlib
from typing import Protocol

import brotli

from llm_proxy.benchmark.mock_faults import Encoding

_GZIP_WINDOW = 31  # 15 bits and gzip's header, whose time stays 0


class Encoder(Protocol):
    def encode(self, data: bytes) -> bytes: ...

    def finish(self) -> bytes: ...


class _Zlib:
    def __init__(self, window: int) -> None:
        self._stream = zlib.compressobj(wbits=window)

    def encode(self, data: bytes) -> bytes:
        return self._stream.compress(data) + self._stream.flush(zlib.Z_SYNC_FLUSH)

    def finish(self) -> bytes:
        return self._stream.flush()


class _Brotli:
    def __init__(self) -> None:
        self._stream = brotli.Compressor(quality=4)

    def encode(self, data: bytes) -> bytes:
        return bytes(self._stream.process(data) + self._stream.flush())

    def finish(self) -> bytes:
        return bytes(self._stream.finish())


def new_encoder(encoding: Encoding) -> Encoder:
    if encoding == "br":
        return _Brotli()
    # RFC 9110 8.4.1.2: "deflate" is the zlib format, not the bare stream.
    return _Zlib(_GZIP_WINDOW if encoding == "gzip" else zlib.MAX_WBITS)
