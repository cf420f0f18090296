"""Folds the frames of one run into what is shown while it is under way, and into its results."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from statistics import median
from typing import Final

from llm_proxy.benchmark.distributions import distribution
from llm_proxy.benchmark.fidelity import FidelityTally
from llm_proxy.benchmark.goodput import GoodputLimit
from llm_proxy.benchmark.hdr_histogram import HdrHistogram
from llm_proxy.benchmark.lane_rows import LaneRows
from llm_proxy.benchmark.live import Live
from llm_proxy.benchmark.mock_figures import NOT_WATCHED, MockFigures
from llm_proxy.benchmark.pair_tally import PairTally
from llm_proxy.benchmark.plan import DIRECT, LANES, PROXIED, Closed, Load, Open, Plan
from llm_proxy.benchmark.report import HangUps, RigVerdict, Side, Spread
from llm_proxy.benchmark.results import Results
from llm_proxy.benchmark.rig_verdict import rig_verdict
from llm_proxy.benchmark.samples import TICKS_PER_MS, TICKS_PER_S, Frame, RigFigures
from llm_proxy.benchmark.side_tally import SideTally
from llm_proxy.benchmark.spread import spread
from llm_proxy.benchmark.time_series import TimeSeries, latency_of

_LIVE: Final = 3 * TICKS_PER_S  # what percentiles and rate are shown of
_TTFT_FRAMES: Final = 60
_FEWEST_IN_THIRD: Final = 300  # direct answers: a p99 of fewer is one or two of them


class Collector:
    def __init__(self, plan: Plan, *, goodput: Sequence[GoodputLimit] = ()) -> None:
        self._plan = plan
        workload = plan.workload
        self._sides = tuple(
            SideTally(is_stream=workload.is_stream, planned_s=plan.load.duration_s, goodput=goodput)
            for _ in plan.targets
        )
        self._series = TimeSeries(lanes=len(plan.targets))
        self._late = HdrHistogram()
        self._pairs = PairTally(plan.seed) if plan.is_paired else None
        self._fidelity = FidelityTally() if plan.is_paired and workload.checks_fidelity else None
        self._at: dict[int, int] = {}  # by process: of its last frame
        self._in_flight: dict[int, int] = {}
        self._last_end = 0
        self._least = 0  # how long the run is at least
        self._requests = self._errors = 0  # of the proxied lane
        self._recent_ttft: deque[Sequence[int]] = deque(maxlen=_TTFT_FRAMES)

    def add(self, frame: Frame) -> None:
        self._at[frame.process] = frame.at
        self._in_flight[frame.process] = frame.in_flight
        self._series.note_in_flight(frame.at, frame.process, frame.in_flight)
        for lane, (side, gaps) in enumerate(
            zip(self._sides, (frame.gaps.proxied, frame.gaps.direct), strict=False)
        ):
            side.add_gaps(gaps)
            if frame.samples.lane:
                self._add_rows(lane, side, LaneRows(frame.samples, lane), frame.process)
        if not isinstance(self._plan.load, Closed):
            self._late.record_all(frame.samples.late)
        if self._pairs is not None:
            self._pairs.join(frame.process)

    def _add_rows(self, lane: int, side: SideTally, rows: LaneRows, process: int) -> None:
        if not len(rows):
            return
        side.add(rows)
        self._last_end = max(self._last_end, self._series.add(lane, rows))
        if lane == PROXIED:
            self._requests += len(rows)
            self._errors += sum(rows.is_error())
            self._recent_ttft.append(rows.measured("first_token"))
        if self._pairs is not None:
            self._pairs.add(process, lane, rows)
        if self._fidelity is not None:
            answers = zip(rows.answered("body"), rows.answered("digest"), strict=True)
            self._fidelity.add(lane, answers)

    def live(self) -> Live:
        elapsed = max(self._at.values(), default=0)
        whole = min(self._at.values(), default=0)  # until when every process has told
        latency, length_s = self._series.recent(PROXIED, until=whole, length=_LIVE)
        rate = latency.count / length_s if length_s else 0.0
        p50_ms, p99_ms = _p50_p99_ms(latency)
        direct = HdrHistogram()
        if self._plan.is_paired:
            direct, _ = self._series.recent(DIRECT, until=whole, length=_LIVE)
        direct_p50_ms, direct_p99_ms = _p50_p99_ms(direct)
        ttft = [value for values in self._recent_ttft for value in values]
        return Live(
            elapsed_s=elapsed / TICKS_PER_S,
            requests=self._requests,
            errors=self._errors,
            rate=rate,
            p50_ms=p50_ms,
            p99_ms=p99_ms,
            in_flight=sum(self._in_flight.values()),
            direct_p50_ms=direct_p50_ms,
            direct_p99_ms=direct_p99_ms,
            ttft_p50_ms=median(ttft) / TICKS_PER_MS if ttft else None,
            rates=self._series.rates(until=whole),
        )

    def hang_ups(self) -> int:
        """Answers of the proxied lane that the generator broke off so far, if it is to do that."""
        return self._sides[PROXIED].hang_ups() if self._plan.workload.cancel_rate else 0

    def came_to_its_end(self) -> None:
        """Nobody broke the run off: an open load took as long as was planned, even if the answer to
        its last request was there before."""
        if not isinstance(self._plan.load, Closed):
            self._least = int(self._plan.load.duration_s * TICKS_PER_S)

    def results(self, figures: Sequence[RigFigures], mock: MockFigures = NOT_WATCHED) -> Results:
        unsent = sum(one.unsent for one in figures)
        sides = self._side_reports(unsent)
        pairs, fidelity = self._pairs, self._fidelity
        return Results(
            side=sides[PROXIED],
            direct=sides[DIRECT] if self._plan.is_paired else None,
            added_latency_ms=None if pairs is None else pairs.latency(),
            added_ttft_ms=None if pairs is None else pairs.ttft(),
            added_inter_token_ms=None if pairs is None else pairs.inter_token(),
            fidelity=None if fidelity is None else fidelity.verdict(),
            hang_ups=self._hang_ups(mock),
            rig=self._rig(figures, sides[PROXIED], mock.cpu_share),
            series=self._series.seconds(until=self._duration()),
            spread=self._spread(),
            histograms=self._histograms(),
        )

    def _duration(self) -> int:
        """Ticks until the last answer, or the end that was planned if the run came so far."""
        planned_s = self._plan.load.duration_s
        if planned_s is None:
            return self._last_end
        planned = int(planned_s * TICKS_PER_S)
        return max(self._last_end, self._least, min(planned, max(self._at.values(), default=0)))

    def _load_end(self) -> int:
        """… without the time in which the last answers were only waited for."""
        planned_s = self._plan.load.duration_s
        duration = self._duration()
        return duration if planned_s is None else min(duration, int(planned_s * TICKS_PER_S))

    def _side_reports(self, unsent: int) -> list[Side]:
        """Arrivals that were never sent were meant for both sides in turn."""
        duration_s = self._duration() / TICKS_PER_S
        count = len(self._sides)
        return [
            side.side(duration_s, unsent=(unsent + count - 1 - lane) // count)
            for lane, side in enumerate(self._sides)
        ]

    def _hang_ups(self, mock: MockFigures) -> HangUps | None:
        if not self._plan.workload.cancel_rate:
            return None
        return HangUps(sent=self.hang_ups(), seen_upstream=mock.hang_ups)

    def _rig(
        self, figures: Sequence[RigFigures], side: Side, mock_cpu_share: float | None
    ) -> RigVerdict:
        return rig_verdict(
            figures,
            latency_ms=side.latency_ms,
            late_ms=distribution(self._late),
            baseline_p99_ms=self._baseline_p99_ms(),
            mock_cpu_share=mock_cpu_share,
        )

    def _baseline_p99_ms(self) -> tuple[float, float] | None:
        """Direct, of the first and the last third of a run that should stay as it was."""
        slices = self._series.whole_slices(until=self._load_end())
        third = len(slices) // 3
        if not (self._plan.is_paired and third and _is_steady(self._plan.load)):
            return None
        first, last = (latency_of(part, DIRECT) for part in (slices[:third], slices[-third:]))
        if min(first.count, last.count) < _FEWEST_IN_THIRD:
            return None
        return _p99_ms(first), _p99_ms(last)

    def _spread(self) -> dict[str, Spread]:
        """None of a ramp, whose slices are meant to differ."""
        if not _is_steady(self._plan.load):
            return {}
        side = self._sides[PROXIED]
        return spread(
            side.latency(),
            self._series.whole_slices(until=self._load_end()),
            length=self._series.length,
            duration_s=side.rate_s(self._duration() / TICKS_PER_S),
        )

    def _histograms(self) -> dict[str, HdrHistogram]:
        return {
            f"{lane}.{kind}": histogram
            for lane, side in zip(LANES, self._sides, strict=False)
            for kind, histogram in (("latency", side.latency()), ("service", side.service()))
        }


def _p50_p99_ms(latency: HdrHistogram) -> tuple[float | None, float | None]:
    if not latency.count:
        return None, None
    return latency.value_at_percentile(50) / TICKS_PER_MS, _p99_ms(latency)


def _p99_ms(latency: HdrHistogram) -> float:
    return latency.value_at_percentile(99) / TICKS_PER_MS


def _is_steady(load: Load) -> bool:
    if isinstance(load, Open):
        return {stage.rate for stage in load.stages} == {load.start_rate}
    return isinstance(load, Closed)
