from __future__ import annotations

import zlib
from collections.abc import Callable

import brotli
import pytest

from llm_proxy.benchmark.mock_encoding import new_encoder
from llm_proxy.benchmark.mock_faults import Encoding


def _brotli_reader() -> Callable[[bytes], bytes]:
    read = brotli.Decompressor().process
    return lambda data: bytes(read(data))


_READERS: dict[Encoding, Callable[[], Callable[[bytes], bytes]]] = {
    "gzip": lambda: zlib.decompressobj(wbits=31).decompress,
    "deflate": lambda: zlib.decompressobj().decompress,
    "br": _brotli_reader,
}


@pytest.mark.parametrize("encoding", _READERS)
def test_each_piece_can_be_read_before_the_next_is_written(encoding: Encoding) -> None:
    encoder = new_encoder(encoding)
    read = _READERS[encoding]()
    for piece in (b"data: one\n\n", b"data: two\n\n"):
        assert read(encoder.encode(piece)) == piece
    assert read(encoder.finish()) == b""


@pytest.mark.parametrize("encoding", _READERS)
def test_the_same_body_gets_the_same_bytes(encoding: Encoding) -> None:
    first, second = new_encoder(encoding), new_encoder(encoding)
    body = b"the same words " * 100
    assert first.encode(body) + first.finish() == second.encode(body) + second.finish()


def test_gzip_is_a_complete_gzip_file() -> None:
    import gzip

    encoder = new_encoder("gzip")
    assert gzip.decompress(encoder.encode(b"body") + encoder.finish()) == b"body"
