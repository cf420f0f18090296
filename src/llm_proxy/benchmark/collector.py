"""Folds the frames of one run into what is shown while it is under way, and into its results."""

from __future__ import annotations

from collections.abc import Sequence

from llm_proxy.benchmark.live import Live
from llm_proxy.benchmark.plan import Plan
from llm_proxy.benchmark.results import Results
from llm_proxy.benchmark.samples import Frame, RigFigures


class Collector:
    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def add(self, frame: Frame) -> None:
        raise NotImplementedError

    def live(self) -> Live:
        raise NotImplementedError

    def results(self, figures: Sequence[RigFigures]) -> Results:
        raise NotImplementedError
