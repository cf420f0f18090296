"""`--csv`: a line for each request, written as the frames come."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import IO, Final

from llm_proxy.benchmark.plan import LANES
from llm_proxy.benchmark.samples import (
    NONE,
    OUTCOMES,
    TICKS_PER_MS,
    TICKS_PER_S,
    UNSENT,
    Frame,
    Samples,
)

COLUMNS: Final = (
    *("run", "started_s", "target", "process", "outcome", "status", "latency_ms", "service_ms"),
    *("late_ms", "first_byte_ms", "ttft_ms", "second_token_ms", "tokens", "received_bytes"),
    *("proxy_ms", "upstream_ms", "body", "pair"),
)


class CsvSamples:
    """Writes the head at once; the file stays the caller's to close."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._write([",".join(COLUMNS)])

    def add(self, frame: Frame, run: int) -> None:
        if len(frame.samples):
            self._write(_lines(frame, run))

    def _write(self, lines: list[str]) -> None:
        self._file.write(("\r\n".join(lines) + "\r\n").encode())  # RFC 4180


def _lines(frame: Frame, run: int) -> list[str]:
    columns = [[str(run)] * len(frame.samples), *_columns(frame.samples, frame.process)]
    return [",".join(fields) for fields in zip(*columns, strict=True)]


def _columns(samples: Samples, process: int) -> Iterator[list[str]]:
    """Those after the run: a column at a time is several times faster than a line at a time."""
    sent = [outcome != UNSENT for outcome in samples.outcome]
    yield [f"{ticks / TICKS_PER_S:.6f}" for ticks in samples.due]
    yield [LANES[lane] for lane in samples.lane]
    yield [str(process)] * len(samples)
    yield [OUTCOMES[outcome] for outcome in samples.outcome]
    yield [str(status) if status else "" for status in samples.status]
    yield [
        _ms(late + service) if was_sent else ""
        for late, service, was_sent in zip(samples.late, samples.service, sent, strict=True)
    ]
    yield [_ms(ticks) if it else "" for ticks, it in zip(samples.service, sent, strict=True)]
    yield _times(samples.late)
    yield _times(samples.first_byte)
    yield _times(samples.first_token)
    yield _times(samples.second_token)
    yield [str(tokens) if tokens > 0 else "" for tokens in samples.tokens]  # 0: no stream, too
    yield _numbers(samples.received)
    yield _times(samples.proxy)
    yield _times(samples.upstream)
    yield _numbers(samples.body)
    yield _numbers(samples.pair)


def _times(column: array[int]) -> list[str]:
    return ["" if ticks == NONE else _ms(ticks) for ticks in column]


def _numbers(column: array[int]) -> list[str]:
    return ["" if number == NONE else str(number) for number in column]


def _ms(ticks: int) -> str:
    return f"{ticks / TICKS_PER_MS:.4f}"
