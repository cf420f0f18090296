"""Response bodies on their way to metadata: those of open exchanges, in bounded memory."""

from __future__ import annotations

import logging
from typing import Final

from llm_proxy.dispatcher.decoding import Decoder
from llm_proxy.dispatcher.metadata import (
    NOTHING,
    JsonMetadata,
    Metadata,
    StreamMetadata,
    metadata_of_json,
)
from llm_proxy.events.record import NO_PARTS, ExchangeRecord, Part

logger = logging.getLogger(__name__)

MAX_OPEN: Final = 64 << 20  # bytes held by all open exchanges
_EMPTY_COST: Final = 1 << 10


class BodyReader:
    """One response body: decoded and searched as it comes."""

    def __init__(self, *, content_encoding: str, stream: bool) -> None:
        self._decoder = Decoder(content_encoding)
        self._reader = StreamMetadata() if stream else JsonMetadata()

    @property
    def held(self) -> int:
        return self._reader.held + self._decoder.cost + _EMPTY_COST

    def feed(self, body: bytes) -> None:
        for piece in self._decoder.decode(body):
            self._reader.feed(piece)

    def finish(self) -> Metadata:
        return self._reader.finish()


class OpenBodies:
    """The exchanges whose parts have come and whose record hasn't; the oldest make room."""

    def __init__(self, max_bytes: int = MAX_OPEN) -> None:
        self.dropped = 0
        self._max_bytes = max_bytes
        self._held = 0
        self._readers: dict[tuple[int, int], BodyReader] = {}  # by connection and exchange

    def __len__(self) -> int:
        return len(self._readers)

    def add(self, connection: int, part: Part) -> None:
        key = (connection, part.exchange)
        reader = self._readers.get(key)
        if reader is None:
            reader = BodyReader(content_encoding=part.content_encoding, stream=part.stream)
            self._readers[key] = reader
            self._held += reader.held
        before = reader.held
        reader.feed(part.body)
        self._held += reader.held - before
        while self._held > self._max_bytes:
            self._drop_oldest()

    def finish(self, connection: int, record: ExchangeRecord) -> Metadata:
        """The record's metadata, from its parts and the body it carries."""
        if record.exchange == NO_PARTS:
            return _metadata_of(record)
        reader = self._readers.pop((connection, record.exchange), None)
        if reader is None:  # dropped: a stream's end may still have the usage
            return _metadata_of(record)
        self._held -= reader.held
        reader.feed(record.body)
        return reader.finish()

    def close(self, connection: int) -> None:
        """Nobody will finish what this connection began."""
        for key in [key for key in self._readers if key[0] == connection]:
            self._held -= self._readers.pop(key).held

    def _drop_oldest(self) -> None:
        reader = self._readers.pop(next(iter(self._readers)))
        self._held -= reader.held
        self.dropped += 1
        if self.dropped == 1:
            logger.warning(
                "unfinished response bodies take more than %d MiB: "
                "records of the oldest get no metadata",
                self._max_bytes >> 20,
            )


def _metadata_of(record: ExchangeRecord) -> Metadata:
    if not record.body:
        return NOTHING
    if not record.stream and not record.content_encoding:
        return metadata_of_json(record.body)
    reader = BodyReader(content_encoding=record.content_encoding, stream=record.stream)
    reader.feed(record.body)
    return reader.finish()
