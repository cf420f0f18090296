"""From the frames of the workers to the lines of the sink."""

from __future__ import annotations

import logging
from typing import Protocol

from llm_proxy.dispatcher.bodies import OpenBodies
from llm_proxy.dispatcher.frames import items_of
from llm_proxy.dispatcher.lines import Line, json_lines, line_of
from llm_proxy.events.record import ExchangeRecord, Part

logger = logging.getLogger(__name__)


class Sink(Protocol):
    """Where lines go; none of it raises."""

    def write(self, lines: bytes) -> None: ...

    def take_dropped(self) -> int:
        """Lines that were lost since this was last asked."""
        ...


class Pipeline:
    """Reads metadata on the way; what can't be read is counted, never an error line."""

    def __init__(self, sink: Sink) -> None:
        self.records = 0
        self.unreadable = 0
        self._sink = sink
        self._bodies = OpenBodies()

    def take(self, connection: int, frame: bytes) -> None:
        """Raises FrameError when the connection can't be understood any more."""
        items, unreadable = items_of(frame)
        dropped = unreadable + self._sink.take_dropped()
        lines: list[Line] = []
        for item in items:
            if isinstance(item, Part):
                self._bodies.add(connection, item)
                continue
            line = self._line_of(connection, item, dropped=dropped)
            if line is None:
                dropped += item.dropped + 1
                unreadable += 1
            else:
                lines.append(line)
                dropped = 0
        self._note_unreadable(unreadable)
        if lines:
            self.records += len(lines)
            self._sink.write(json_lines(lines))

    def _line_of(self, connection: int, record: ExchangeRecord, *, dropped: int) -> Line | None:
        metadata = self._bodies.finish(connection, record)
        try:
            return line_of(record, metadata, dropped=record.dropped + dropped)
        except (ValueError, OverflowError, OSError):
            return None

    def _note_unreadable(self, count: int) -> None:
        if count and not self.unreadable:
            logger.error("a worker sends records that can't be read; is it of another version?")
        self.unreadable += count

    @property
    def bodies_dropped(self) -> int:
        """Responses that were too much to hold and so gave no metadata."""
        return self._bodies.dropped

    def disconnect(self, connection: int) -> None:
        self._bodies.close(connection)
