"""A response's body on its way to the record, handed over in parts so that little is held."""

from __future__ import annotations

from typing import Final

from llm_proxy.events.record import NO_PARTS
from llm_proxy.server.gateway.gateway import RecordSink

PART_BYTES: Final = 65536


class Capture:
    __slots__ = ("_content_encoding", "_is_stream", "_pieces", "_recorder", "_size", "number")

    def __init__(self, recorder: RecordSink, content_encoding: str, *, is_stream: bool) -> None:
        self._recorder = recorder
        self._content_encoding = content_encoding
        self._is_stream = is_stream
        self._pieces: list[bytes] = []
        self._size = 0
        self.number = NO_PARTS  # under which the recorder knows the parts

    def add(self, body: bytes) -> None:
        self._pieces.append(body)
        self._size += len(body)
        if self._size >= PART_BYTES:
            self.hand_over()

    def hand_over(self) -> None:
        """Gives the recorder what there is, before the end."""
        if not self._pieces:
            return
        if self.number == NO_PARTS:
            self.number = self._recorder.new_exchange()
        self._recorder.part(
            self.number,
            b"".join(self._pieces),
            content_encoding=self._content_encoding,
            stream=self._is_stream,
        )
        self._pieces.clear()
        self._size = 0

    def rest(self) -> bytes:
        """What was not handed over."""
        return b"".join(self._pieces)
