"""What is noted of each request, in columns: cheap to write, cheap to send, cheap to fold.

Times are whole ticks of 100 ns, so that equal ones can be counted together; -1 is "none".
"""

from __future__ import annotations

from array import array
from typing import Final

import msgspec

TICKS_PER_S: Final = 10_000_000
TICKS_PER_MS: Final = 10_000
NONE: Final = -1

# How a request ended. Everything but OK and CANCELLED is an error.
OK: Final = 0
CONNECT: Final = 1  # no connection
TIMEOUT: Final = 2
RESET: Final = 3  # the connection broke before a head
CUT: Final = 4  # … after it: the answer is incomplete
CLIENT_ERROR: Final = 5  # 4xx
SERVER_ERROR: Final = 6  # 5xx
BROKEN_STREAM: Final = 7  # ended in good order, but without its last event or with an error event
CANCELLED: Final = 8  # hung up on by us, as asked or at the end
UNSENT: Final = 9  # was due, but not sent before the end
OUTCOMES: Final = (
    *("ok", "connect", "timeout", "reset", "cut", "4xx", "5xx", "broken stream"),
    *("cancelled", "unsent"),
)


class Samples(msgspec.Struct, kw_only=True):
    """The requests that ended within one interval of one process, a row each."""

    lane: array[int]  # "B": PROXIED or DIRECT
    outcome: array[int]  # "B"
    status: array[int]  # "H": 0 without an answer
    due: array[int]  # "q" ticks since the run's start: when it was meant to be sent
    late: array[int]  # "q" from then until it was
    service: array[int]  # "q" from sending until the end; latency is late + service
    first_byte: array[int]  # "q" from sending; of the body
    first_token: array[int]  # "q" … of the first event that says something; streams only
    second_token: array[int]  # "q" …
    last_token: array[int]  # "q" …
    tokens: array[int]  # "q" what the stream said; as its usage tells, else events
    stalls: array[int]  # "q" gaps longer than ten times the stream's median
    gap: array[int]  # "q" the stream's mean gap between tokens
    received: array[int]  # "q" bytes of the answer's body
    sent: array[int]  # "q" bytes of the request
    proxy: array[int]  # "q" from Server-Timing
    upstream: array[int]  # "q" …
    pair: array[int]  # "q" the same number for one request of each lane; -1 unpaired
    body: array[int]  # "q" which of the workload's bodies
    digest: array[int]  # "Q" of the answer's bytes; 0 when it isn't complete

    def __len__(self) -> int:
        return len(self.lane)


class Gaps(msgspec.Struct, kw_only=True):
    """Ticks between the tokens of streams, all of them, by lane."""

    proxied: array[int]
    direct: array[int]


class Frame(msgspec.Struct, kw_only=True):
    """An interval of one generator process."""

    process: int  # 0, 1, … of `processes`
    at: int  # ticks since the run's start
    in_flight: int
    samples: Samples
    gaps: Gaps


class RigFigures(msgspec.Struct, kw_only=True):
    """What one generator process says of itself when a run has ended."""

    process: int
    cpu_s: float
    wall_s: float
    lag_ticks: int
    lag_p50_ms: float  # how late its loop's ticks came
    lag_p99_ms: float
    lag_max_ms: float
    reconnects: int  # requests sent again since a kept connection had died
    connects: int
    unsent: int  # arrivals due that were never sent, since all slots were taken until the end
    blocked: int  # arrivals that waited for a slot: the target's fault, if the process was idle
    late_p99_ms: float  # of the other arrivals: sending after they were due, the rig's own fault
    waited_s: float = 0.0  # ready to work, without a core
    due: int = 0  # arrivals of an open load, while it lasted
    sent: int = 0  # … of those
    lost: str = ""  # why the process ended before the run did: then nothing else is known of it


def lost_process(process: int, why: str) -> RigFigures:
    numbers = dict.fromkeys(RigFigures.__struct_fields__, 0)
    return RigFigures(**{**numbers, "process": process, "lost": why})  # type: ignore[arg-type]


_TYPECODES: Final = {
    name: {"lane": "B", "outcome": "B", "status": "H", "digest": "Q"}.get(name, "q")
    for name in Samples.__struct_fields__
}


def new_samples() -> Samples:
    return Samples(**{name: array(code) for name, code in _TYPECODES.items()})


def new_gaps() -> Gaps:
    return Gaps(proxied=array("q"), direct=array("q"))


class _Packed(msgspec.Struct, array_like=True):
    """A frame on its way: each column as its bytes, of this machine's order."""

    process: int
    at: int
    in_flight: int
    columns: list[bytes]
    gaps: list[bytes]


def encode_frame(frame: Frame) -> bytes:
    columns = [getattr(frame.samples, name).tobytes() for name in _TYPECODES]
    gaps = [frame.gaps.proxied.tobytes(), frame.gaps.direct.tobytes()]
    packed = _Packed(frame.process, frame.at, frame.in_flight, columns, gaps)
    return msgspec.msgpack.encode(packed)


def decode_frame(data: bytes) -> Frame:
    packed = _decoder.decode(data)
    columns = {
        name: array(code, column)
        for (name, code), column in zip(_TYPECODES.items(), packed.columns, strict=True)
    }
    proxied, direct = (array("q", column) for column in packed.gaps)
    return Frame(
        process=packed.process,
        at=packed.at,
        in_flight=packed.in_flight,
        samples=Samples(**columns),
        gaps=Gaps(proxied=proxied, direct=direct),
    )


_decoder: Final = msgspec.msgpack.Decoder(_Packed)
