from __future__ import annotations

import gzip
import tracemalloc
import zlib
from collections.abc import Callable

import brotli
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.dispatcher.decoding import PIECE, Decoder


def raw_deflate(data: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-15)
    return stream.compress(data) + stream.flush()


ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    "identity": bytes,
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
}
codings = st.lists(st.sampled_from(sorted(ENCODERS)), min_size=1, max_size=3)


def cut(data: bytes, at: list[int]) -> list[bytes]:
    marks = [0, *sorted(mark % (len(data) + 1) for mark in at), len(data)]
    return [data[start:end] for start, end in zip(marks, marks[1:], strict=False)]


def decode(decoder: Decoder, pieces: list[bytes]) -> bytes:
    return b"".join(out for piece in pieces for out in decoder.decode(piece))


@given(codings, st.binary(max_size=2_000), st.lists(st.integers(0, 5_000), max_size=6))
def test_every_coding_comes_back_however_it_is_cut(
    names: list[str], data: bytes, at: list[int]
) -> None:
    coded = data
    for name in names:
        coded = ENCODERS[name](coded)
    assert decode(Decoder(", ".join(names)), cut(coded, at)) == data


@given(st.binary(max_size=2_000), st.lists(st.integers(0, 5_000), max_size=6))
def test_raw_deflate_is_understood(data: bytes, at: list[int]) -> None:
    assert decode(Decoder("deflate"), cut(raw_deflate(data), at)) == data


@given(st.text(max_size=30), codings, st.lists(st.binary(max_size=300), max_size=4))
def test_garbage_never_raises(name: str, names: list[str], pieces: list[bytes]) -> None:
    decode(Decoder(name), pieces)
    decode(Decoder(",".join(names)), pieces)


@pytest.mark.parametrize("name", ["gzip", "deflate", "br"])
def test_long_bodies_come_in_pieces_of_bounded_size(name: str) -> None:
    data = bytes(range(256)) * 8_000
    pieces = list(Decoder(name).decode(ENCODERS[name](data)))
    assert b"".join(pieces) == data
    assert max(map(len, pieces)) <= 2 * PIECE
    assert len(pieces) > 3


def test_names_are_compared_without_case_and_blanks() -> None:
    assert decode(Decoder(" GZip "), [gzip.compress(b"data")]) == b"data"


def test_members_of_gzip_follow_each_other() -> None:
    coded = gzip.compress(b"one ") + gzip.compress(b"two")
    assert decode(Decoder("gzip"), [coded]) == b"one two"
    assert decode(Decoder("gzip"), [coded[:30], coded[30:]]) == b"one two"


@pytest.mark.parametrize("name", ["gzip", "deflate"])
def test_cut_body_gives_what_came_before(name: str) -> None:
    data = bytes(range(256)) * 100
    coded = ENCODERS[name](data)
    out = decode(Decoder(name), [coded[: len(coded) // 2]])
    assert out and data.startswith(out)


@pytest.mark.parametrize("name", ["gzip", "deflate", "br"])
def test_nothing_comes_after_the_first_broken_byte(name: str) -> None:
    decoder = Decoder(name)
    assert decode(decoder, [b"\x1f\x8b this is not compressed"]) == b""
    assert decode(decoder, [ENCODERS[name](b"data")]) == b""


@pytest.mark.parametrize("name", ["zstd", "gzip, compress", "gzip, gzip, gzip, gzip"])
def test_unknown_codings_and_too_many_give_nothing(name: str) -> None:
    assert decode(Decoder(name), [gzip.compress(b"data")]) == b""


@pytest.mark.parametrize("names", [["gzip"], ["deflate"], ["br"], ["gzip", "gzip"]])
def test_bombs_are_stopped_in_bounded_memory(names: list[str]) -> None:
    coded = bytes(32 << 20)
    for name in names:
        coded = ENCODERS[name](coded) if name != "br" else brotli.compress(coded, quality=3)
    decoder = Decoder(",".join(names))
    tracemalloc.start()
    size = sum(map(len, decoder.decode(coded)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size <= (16 << 20) + 100 * len(coded) < 32 << 20
    assert peak < 4 << 20
    assert list(decoder.decode(coded)) == []


def test_what_a_decoder_may_hold_is_estimated() -> None:
    assert Decoder("").cost == 0
    assert 0 < Decoder("gzip").cost < Decoder("gzip, br").cost
