"""What `--csv` and `--jsonl` say of each request: the columns, their names, and how they read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from llm_proxy.benchmark.plan import LANES
from llm_proxy.benchmark.samples import NONE, OUTCOMES, TICKS_PER_MS, TICKS_PER_S, UNSENT, Frame

_Values = Callable[[Frame, int], list[str]]


class Column(msgspec.Struct, frozen=True):
    """A column at a time is several times faster than a line at a time."""

    name: str
    values: _Values  # of a frame and the number of its run; "" is "not measured"
    is_text: bool = False  # else numbers


def _measured(field: str, show: Callable[[int], str]) -> _Values:
    def values(frame: Frame, run: int) -> list[str]:
        column = getattr(frame.samples, field)
        return ["" if value == NONE else show(value) for value in column]

    return values


def _of_streams(field: str) -> _Values:
    def values(frame: Frame, run: int) -> list[str]:
        samples = frame.samples
        return [
            str(number) if tokens > 0 else ""  # 0 is no stream, too
            for number, tokens in zip(getattr(samples, field), samples.tokens, strict=True)
        ]

    return values


def _run(frame: Frame, run: int) -> list[str]:
    return [str(run)] * len(frame.samples)


def _started(frame: Frame, run: int) -> list[str]:
    return [f"{ticks / TICKS_PER_S:.6f}" for ticks in frame.samples.due]


def _target(frame: Frame, run: int) -> list[str]:
    return [LANES[lane] for lane in frame.samples.lane]


def _process(frame: Frame, run: int) -> list[str]:
    return [str(frame.process)] * len(frame.samples)


def _outcome(frame: Frame, run: int) -> list[str]:
    return [OUTCOMES[outcome] for outcome in frame.samples.outcome]


def _status(frame: Frame, run: int) -> list[str]:
    return [str(status) if status else "" for status in frame.samples.status]


def _latency(frame: Frame, run: int) -> list[str]:
    samples = frame.samples
    columns = zip(samples.late, samples.service, samples.outcome, strict=True)
    return ["" if outcome == UNSENT else _ms(late + it) for late, it, outcome in columns]


def _service(frame: Frame, run: int) -> list[str]:
    columns = zip(frame.samples.service, frame.samples.outcome, strict=True)
    return ["" if outcome == UNSENT else _ms(ticks) for ticks, outcome in columns]


def _ms(ticks: int) -> str:
    return f"{ticks / TICKS_PER_MS:.4f}"


# New ones come last: programs may count on the places of the others.
COLUMNS: Final = (
    Column("run", _run),
    Column("started_s", _started),
    Column("target", _target, is_text=True),
    Column("process", _process),
    Column("outcome", _outcome, is_text=True),
    Column("status", _status),
    Column("latency_ms", _latency),
    Column("service_ms", _service),
    Column("late_ms", _measured("late", _ms)),
    Column("first_byte_ms", _measured("first_byte", _ms)),
    Column("ttft_ms", _measured("first_token", _ms)),
    Column("second_token_ms", _measured("second_token", _ms)),
    Column("tokens", _of_streams("tokens")),
    Column("received_bytes", _measured("received", str)),
    Column("proxy_ms", _measured("proxy", _ms)),
    Column("upstream_ms", _measured("upstream", _ms)),
    Column("body", _measured("body", str)),
    Column("pair", _measured("pair", str)),
    Column("gap_ms", _measured("gap", _ms)),
    Column("stalls", _of_streams("stalls")),
    Column("sent_bytes", _measured("sent", str)),
)
