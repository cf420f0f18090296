"""The worker's side of the tally: its numbers, when asked, every second, and at its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import process_time
from typing import Final

import msgspec

from llm_proxy.measurements import Series, Snapshot
from llm_proxy.server.channel import Measured, RefusalCount, Refused, encode

EVERY_S: Final = 1.0  # what is counted in it dies with a worker that is killed


RefusalKey = tuple[str, str, str, str]  # code, token id, project id, client address
TakeRefusals = Callable[[], tuple[list[tuple[RefusalKey, int]], dict[str, int]]]


class Reporter:
    def __init__(
        self,
        measure: Callable[[], Snapshot],
        writer: asyncio.StreamWriter,
        *,
        take_refusals: TakeRefusals = lambda: ([], {}),
        every_s: float = EVERY_S,
    ) -> None:
        """`take_refusals` gives those since it was last called, and others by their code."""
        self._measure = measure
        self._writer = writer
        self._take_refusals = take_refusals
        self._every_s = every_s
        self._told = Snapshot()

    def answer(self, sequence: int) -> None:
        """`sequence` is that of the question; 0: nobody asked."""
        self._tell(sequence, self._measure())

    def finish(self) -> None:
        """Nothing is counted any more."""
        self.answer(0)
        self._tell_refusals()

    async def run(self) -> None:
        """Until it is cancelled; says nothing while nothing changes."""
        while True:
            await asyncio.sleep(self._every_s)
            if self._writer.transport.get_write_buffer_size():
                continue  # the supervisor doesn't read; what it missed is in the next one
            self._tell_refusals()
            snapshot = self._measure()
            if snapshot != self._told:
                self._tell(0, snapshot)

    def _tell_refusals(self) -> None:
        counts, others = self._take_refusals()
        if counts and not self._writer.is_closing():
            told = [RefusalCount(*key, count) for key, count in counts]
            self._writer.write(encode(Refused(told, others)))

    def _tell(self, sequence: int, snapshot: Snapshot) -> None:
        self._told = snapshot
        if self._writer.is_closing():
            return
        cpu = Series("process_cpu_seconds", ("worker",), process_time())
        whole = msgspec.structs.replace(snapshot, counters=(*snapshot.counters, cpu))
        self._writer.write(encode(Measured(sequence, whole)))
