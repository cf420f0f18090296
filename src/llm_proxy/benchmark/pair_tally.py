"""The differences of all pairs of a run, proxied minus direct."""

from __future__ import annotations

from collections import defaultdict

from llm_proxy.benchmark.lane_rows import LaneRows
from llm_proxy.benchmark.pair_join import PairJoin
from llm_proxy.benchmark.paired import Differences, added
from llm_proxy.benchmark.report import Added


class PairTally:
    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._joins: defaultdict[int, PairJoin] = defaultdict(PairJoin)
        self._latency = Differences(seed)
        self._ttft = Differences(seed)
        self._inter_token = Differences(seed)

    def add(self, process: int, lane: int, rows: LaneRows) -> None:
        """Only of requests that ended well: the other half of a failed one is never joined."""
        times = zip(
            rows.answered_latency, rows.answered("first_token"), rows.answered("gap"), strict=True
        )
        self._joins[process].add(lane, zip(rows.answered("pair"), times, strict=True))

    def join(self, process: int) -> None:
        pairs = self._joins[process].joined()
        self._latency.extend(proxied[0] - direct[0] for proxied, direct in pairs)
        for differences, place in ((self._ttft, 1), (self._inter_token, 2)):
            differences.extend(
                proxied[place] - direct[place]
                for proxied, direct in pairs
                if proxied[place] >= 0 and direct[place] >= 0
            )

    def latency(self) -> Added | None:
        return added(self._latency.values, seed=self._seed)

    def ttft(self) -> Added | None:
        return added(self._ttft.values, seed=self._seed)

    def inter_token(self) -> Added | None:
        return added(self._inter_token.values, seed=self._seed)
