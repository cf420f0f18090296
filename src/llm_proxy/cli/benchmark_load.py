"""How much load: closed, at a rate, in stages, or whatever the search for the highest asks for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from llm_proxy.cli.benchmark_limits import longest_allowed_s, p99_limits_ms
from llm_proxy.cli.benchmark_options import Given
from llm_proxy.errors import WrongUsage

if TYPE_CHECKING:
    from llm_proxy.benchmark.plan import Load, Open, Replay, Stage
    from llm_proxy.benchmark.report import LoadDescription, LoadModel

CONCURRENCY: Final = 10
DURATION_S: Final = 10.0
PROBE_S: Final = 5.0
_PROBE_LIMITS: Final = 4  # a probe is as many times as long as the slowest answer it allows
WARM_UP_S: Final = 1.0
REQUESTS_ELSEWHERE: Final = 100  # each of them may be billed
LONGEST_S: Final = 24 * 3600.0
_FIRST_PROBE: Final = 100.0
_FIRST_PROBE_ELSEWHERE: Final = 1.0
_HIGHEST_RATE: Final = 1_000_000.0
_MOST_IN_FLIGHT: Final = 10_000
_RATE: Final = re.compile(r"(\d+(?:\.\d+)?)(?:/(s|m|h))?", re.ASCII)
_SECONDS: Final = {None: 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadChoice:
    load: Load  # of a search that of one probe
    model: LoadModel
    processes: int
    warm_up_s: float
    repeats: int
    first_rate: float | None = None  # of --find-max and --frontier
    p99_limits_ms: tuple[float, ...] = ()  # of --frontier
    trace: str = ""  # the file of --replay

    def describe(self) -> LoadDescription:
        from llm_proxy.benchmark.plan import Closed
        from llm_proxy.benchmark.report import LoadDescription

        return LoadDescription(
            model=self.model,
            description=_description(self),
            concurrency=self.load.concurrency if isinstance(self.load, Closed) else None,
            rate=_last_rate(self.load) if self.model in ("constant", "poisson") else None,
            processes=self.processes,
            warm_up_s=self.warm_up_s,
        )

    @property
    def is_by_lot(self) -> bool:
        """Then `amount` is what comes on average."""
        from llm_proxy.benchmark.plan import Open

        return isinstance(self.load, Open) and self.load.arrivals == "poisson"

    @property
    def amount(self) -> int | None:
        """Requests to each target, with warm-up and repeats; None: as many as it answers."""
        from llm_proxy.benchmark.plan import Closed
        from llm_proxy.benchmark.schedule import due_between
        from llm_proxy.benchmark.session import warm_up_load

        if self.first_rate is not None:
            return None
        if isinstance(self.load, Closed):
            if self.load.requests is None or self.warm_up_s:
                return None
            return self.load.requests * self.repeats
        amount = due_between(self.load, 0.0, self.load.duration_s) * self.repeats
        if self.warm_up_s:
            warm_up = warm_up_load(self.load, self.warm_up_s)
            assert not isinstance(warm_up, Closed)
            amount += due_between(warm_up, 0.0, warm_up.duration_s)
        return amount

    @property
    def length_s(self) -> float | None:
        """Without warm-up; None where requests are counted."""
        from llm_proxy.benchmark import find_max, frontier

        runs = self.repeats
        if self.first_rate is not None:
            runs = frontier.MOST_PROBES if self.p99_limits_ms else find_max.MOST_PROBES
        return None if self.load.duration_s is None else self.load.duration_s * runs


def choose_load(
    given: Given, *, is_elsewhere: bool, is_throwaway: bool, replay: Replay | None = None
) -> LoadChoice:
    """`replay` is what --replay holds. Raises WrongUsage."""
    _refuse_processes_without_connections(given)
    load: Load
    model: LoadModel
    if replay is not None:
        load, model, first_rate = _replayed(given, replay), "replay", None
    elif _has_rate(given):
        load, model, first_rate = _open(given, is_elsewhere)
    else:
        load, model, first_rate = _closed(given, is_elsewhere)
    return LoadChoice(
        load=load,
        model=model,
        processes=given.processes,
        warm_up_s=_warm_up_s(given, is_elsewhere=is_elsewhere, is_throwaway=is_throwaway),
        repeats=given.repeat or 1,
        first_rate=first_rate,
        p99_limits_ms=p99_limits_ms(given),
        trace="" if given.replay is None else given.replay.name,
    )


def _refuse_processes_without_connections(given: Given) -> None:
    """Of an open load, too: a process sends one request at a time at least."""
    if given.concurrency is not None and given.concurrency < given.processes:
        raise WrongUsage(
            f"--processes {given.processes} can't share --concurrency {given.concurrency}: "
            "each needs a connection of its own; raise the one or lower the other"
        )


def _has_rate(given: Given) -> bool:
    return bool(given.rate or given.stages or given.find_max or given.frontier is not None)


def _closed(given: Given, is_elsewhere: bool) -> tuple[Load, LoadModel, None]:
    from llm_proxy.benchmark.plan import Closed

    requests, duration_s = given.requests, None
    if given.duration is not None:
        duration_s = parse_length("--duration", given.duration)
    elif requests is None and is_elsewhere:
        requests = REQUESTS_ELSEWHERE
    elif requests is None:
        duration_s = DURATION_S
    concurrency = given.concurrency or max(CONCURRENCY, given.processes)
    load = Closed(concurrency=concurrency, requests=requests, duration_s=duration_s)
    return load, "closed", None


def _replayed(given: Given, replay: Replay) -> Replay:
    from msgspec.structs import replace

    return replace(replay, max_in_flight=given.concurrency or _MOST_IN_FLIGHT)


def _open(given: Given, is_elsewhere: bool) -> tuple[Load, LoadModel, float | None]:
    first_rate = None
    model: LoadModel
    if given.stages:
        model, stages, start_rate = "stages", parse_stages(given.stages), 0.0
    else:
        rate = _first_rate(given, is_elsewhere)
        model, start_rate = "constant", rate
        stages = _constant(given, rate, is_elsewhere)
        if _is_search(given):
            model, first_rate = "find-max" if given.find_max else "frontier", rate
        elif given.poisson:
            model = "poisson"
    return _open_load(given, stages, start_rate), model, first_rate


def _open_load(given: Given, stages: tuple[Stage, ...], start_rate: float) -> Open:
    from llm_proxy.benchmark.plan import Open

    return Open(
        stages=stages,
        start_rate=start_rate,
        arrivals="poisson" if given.poisson else "constant",
        max_in_flight=given.concurrency or _MOST_IN_FLIGHT,
    )


def _first_rate(given: Given, is_elsewhere: bool) -> float:
    if given.rate is None:
        return _FIRST_PROBE_ELSEWHERE if is_elsewhere else _FIRST_PROBE
    try:
        return parse_rate(given.rate)
    except ValueError as exc:
        raise WrongUsage(f"--rate: {exc}") from None


def _constant(given: Given, rate: float, is_elsewhere: bool) -> tuple[Stage, ...]:
    from llm_proxy.benchmark.plan import Stage

    if given.duration is not None:
        duration_s = parse_length("--duration", given.duration)
        if given.requests is not None:
            duration_s = min(duration_s, given.requests / rate)
    elif given.requests is not None:
        duration_s = given.requests / rate
    elif _is_search(given):
        duration_s = _probe_s(given)
    else:
        duration_s = REQUESTS_ELSEWHERE / rate if is_elsewhere else DURATION_S
    if duration_s > LONGEST_S:
        raise WrongUsage(
            f"--requests {given.requests} at --rate {given.rate} take more than a day; "
            "give fewer, or a higher rate"
        )
    return (Stage(duration_s=duration_s, rate=rate),)


def _is_search(given: Given) -> bool:
    return given.find_max or given.frontier is not None


def _probe_s(given: Given) -> float:
    return max(PROBE_S, _PROBE_LIMITS * longest_allowed_s(given))


def _warm_up_s(given: Given, *, is_elsewhere: bool, is_throwaway: bool) -> float:
    if given.warm_up is not None:
        return parse_length("--warm-up", given.warm_up, may_be_zero=True)
    if is_elsewhere or (given.requests is not None and not is_throwaway):
        return 0.0  # who counts requests may pay for them
    return WARM_UP_S


def parse_length(option: str, text: str, *, may_be_zero: bool = False) -> float:
    """Seconds. Raises WrongUsage."""
    from llm_proxy.quantities import parse_duration

    try:
        seconds = parse_duration(text)
    except ValueError as exc:
        raise WrongUsage(f"{option}: {exc}") from None
    if seconds > LONGEST_S or not (seconds or may_be_zero):
        raise WrongUsage(f"{option} must be more than 0s and at most 1d, not {text!r}")
    return seconds


def parse_rate(text: str) -> float:
    """Requests a second: `500`, `500/s`, `30/m`. Raises ValueError."""
    match = _RATE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text[:40]!r} isn't a rate; write it like 500/s, 0.5/s or 30/m")
    rate = float(match[1]) / _SECONDS[match[2]]
    if not 0.001 <= rate <= _HIGHEST_RATE:
        raise ValueError(f"a rate is from 0.001/s to {_HIGHEST_RATE:.0f}/s, not {text[:40]!r}")
    return rate


def parse_stages(text: str) -> tuple[Stage, ...]:
    """`10s:100,30s:500`. Raises WrongUsage."""
    from llm_proxy.benchmark.plan import Stage

    stages = []
    for number, part in enumerate(text.split(","), start=1):
        duration, colon, rate = part.strip().partition(":")
        if not colon:
            raise WrongUsage(
                f"--stages: stage {number} ({part.strip()[:40]!r}) must be DURATION:RATE, "
                "like 10s:100,30s:500"
            )
        try:
            at_end = 0.0 if rate.strip() == "0" else parse_rate(rate)
        except ValueError as exc:
            raise WrongUsage(f"--stages: stage {number}: {exc}") from None
        length = parse_length(f"--stages: stage {number}", duration)
        stages.append(Stage(duration_s=length, rate=at_end))
    if not any(stage.rate for stage in stages):
        raise WrongUsage("--stages: every rate is 0; give one that isn't, like 10s:100")
    return tuple(stages)


def _last_rate(load: Load) -> float:
    from llm_proxy.benchmark.plan import Open

    assert isinstance(load, Open)
    return load.stages[-1].rate


def _description(choice: LoadChoice) -> str:
    from llm_proxy.benchmark.frontier import limit_text
    from llm_proxy.benchmark.plan import Closed, Replay

    load = choice.load
    if isinstance(load, Replay):
        length = _seconds(load.offsets_s[-1])
        return f"replay of {choice.trace}, {len(load.offsets_s)} requests in {length}"
    if isinstance(load, Closed):
        connections = "1 connection" if load.concurrency == 1 else f"{load.concurrency} connections"
        ends = [f"{load.requests} requests"] if load.requests else []
        ends += [_seconds(load.duration_s)] if load.duration_s else []
        return f"closed, {connections}, {' or '.join(ends)}"
    arrivals = "Poisson arrivals" if load.arrivals == "poisson" else "constant rate"
    if choice.p99_limits_ms:
        limits = ", ".join(map(limit_text, choice.p99_limits_ms))
        return (
            f"search for the highest rates with p99 within {limits}, {arrivals}, "
            f"{_seconds(load.duration_s)} a probe"
        )
    if choice.model == "find-max":
        return f"search for the highest rate, {arrivals}, {_seconds(load.duration_s)} a probe"
    if choice.model == "stages":
        ramps = ", ".join(
            f"{stage.rate:,.7g}/s in {_seconds(stage.duration_s)}" for stage in load.stages
        )
        return f"open, {arrivals}, ramps to {ramps}"
    return f"open, {arrivals}, {load.stages[-1].rate:,.7g}/s, {_seconds(load.duration_s)}"


def _seconds(seconds: float) -> str:
    return f"{seconds:g} s"
