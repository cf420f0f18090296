"""The frames of a worker's connection: cut out of what arrives, and taken apart."""

from __future__ import annotations

import msgspec

from llm_proxy.events.record import FRAME_HEAD, MAX_FRAME, ExchangeRecord, Part

_decode_frame = msgspec.msgpack.Decoder(list[Part | ExchangeRecord]).decode
_decode_items = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode
_decode_item = msgspec.msgpack.Decoder(Part | ExchangeRecord).decode


class FrameError(Exception):
    """The sender is not a recorder, or its connection lost step."""


class FrameReader:
    """Fed by pieces cut anywhere; an unfinished frame is simply never put out."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        self._buffer += data
        frames = []
        while len(self._buffer) >= FRAME_HEAD.size:
            (length,) = FRAME_HEAD.unpack_from(self._buffer)
            if length > MAX_FRAME:
                raise FrameError(f"a frame of {length} bytes is announced, {MAX_FRAME} at most")
            end = FRAME_HEAD.size + length
            if len(self._buffer) < end:
                break
            frames.append(bytes(self._buffer[FRAME_HEAD.size : end]))
            del self._buffer[:end]
        return frames


def items_of(frame: bytes) -> tuple[list[Part | ExchangeRecord], int]:
    """What a frame holds in order, and how many of its items could not be read."""
    try:
        return _decode_frame(frame), 0
    except msgspec.ValidationError:
        return _readable_items(frame)
    except (msgspec.DecodeError, ValueError) as exc:
        raise FrameError(f"a frame is not msgpack: {exc}") from exc


def _readable_items(frame: bytes) -> tuple[list[Part | ExchangeRecord], int]:
    try:
        raw_items = _decode_items(frame)
    except (msgspec.DecodeError, ValueError) as exc:
        raise FrameError(f"a frame is not a list of items: {exc}") from exc
    items: list[Part | ExchangeRecord] = []
    for raw in raw_items:
        try:
            items.append(_decode_item(raw))
        except (msgspec.DecodeError, ValueError):
            continue
    return items, len(raw_items) - len(items)
