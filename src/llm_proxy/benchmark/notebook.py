"""Where a generator process writes down what it saw, until the next frame takes it away."""

from __future__ import annotations

from array import array

from llm_proxy.benchmark.plan import DIRECT
from llm_proxy.benchmark.samples import Frame, Samples, new_gaps, new_samples


class Notebook:
    """`samples` is exchanged with every frame, so it must not be kept."""

    __slots__ = ("gaps", "process", "samples")

    def __init__(self, process: int) -> None:
        self.process = process
        self.samples: Samples = new_samples()
        self.gaps = new_gaps()

    def note_gaps(self, lane: int, gaps: array[int]) -> None:
        (self.gaps.direct if lane == DIRECT else self.gaps.proxied).extend(gaps)

    def take(self, at: int, in_flight: int) -> Frame:
        samples, self.samples = self.samples, new_samples()
        gaps, self.gaps = self.gaps, new_gaps()
        return Frame(process=self.process, at=at, in_flight=in_flight, samples=samples, gaps=gaps)
