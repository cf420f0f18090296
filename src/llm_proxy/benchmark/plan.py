"""What the generator is told to do: immutable, and able to travel to its processes."""

from __future__ import annotations

from bisect import bisect_left
from typing import Any, Final, Literal

import msgspec

from llm_proxy.secrets import Secret

PROXIED: Final = 0  # the lane of the target, and of the direct baseline beside it
DIRECT: Final = 1
LANES: Final = ("proxied", "direct")

Order = Literal["shuffled", "in turn"]
_SHORTEST_S: Final = 0.001  # of a replay whose requests come all at once


class Target(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One side of a run; requests take its keys in turn."""

    base_url: str  # http(s)://HOST[:PORT][/PREFIX], without a slash at its end
    keys: tuple[Secret, ...] = ()
    key_header: str = "Authorization"
    key_scheme: str = "Bearer"  # "": the bare key
    ca_file: str | None = None


class Workload(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The requests: one for each body, in a seeded order that is the same on both sides, or in
    turn: then each connection begins with the first one."""

    method: str = "POST"
    endpoint: str = "/v1/chat/completions"
    headers: tuple[tuple[str, str], ...] = ()
    bodies: tuple[bytes, ...] = (b"",)
    order: Order = "shuffled"
    is_stream: bool = False
    cancel_rate: float = 0.0  # the share of streams that are hung up on, 0 to 1
    checks_fidelity: bool = True  # answers to the same body must be the same bytes on both sides


class Closed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="closed"):
    """As many requests as are answered: each connection sends its next one when it has the last."""

    concurrency: int
    requests: int | None = None  # ends after as many, or
    duration_s: float | None = None  # … after so long, whichever comes first; never both None


class Stage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    duration_s: float
    rate: float  # requests a second at its end; it begins with that of the stage before


class Open(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="open"):
    """Requests come at times of their own, however long the answers take."""

    stages: tuple[Stage, ...]
    start_rate: float  # of the first stage's beginning; a constant rate has it there too
    arrivals: Literal["constant", "poisson"] = "constant"
    max_in_flight: int = 10_000  # more wait, and their latency counts from when they were due

    @property
    def duration_s(self) -> float:
        return sum(stage.duration_s for stage in self.stages)


class Replay(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="replay"):
    """Requests come when those of a trace did, each with its own body."""

    offsets_s: tuple[float, ...]  # since the first one, ascending
    bodies: tuple[int, ...]  # which of the workload's each of them has
    max_in_flight: int = 10_000

    @property
    def duration_s(self) -> float:
        """Until a mean gap after the last arrival, as that of a constant rate is."""
        count = len(self.offsets_s)
        return max(self.offsets_s[-1] * count / max(count - 1, 1), _SHORTEST_S)

    def until(self, end_s: float) -> Replay:
        """Without what comes later; the first arrival is always there."""
        count = max(1, bisect_left(self.offsets_s, end_s))
        return msgspec.structs.replace(
            self, offsets_s=self.offsets_s[:count], bodies=self.bodies[:count]
        )


Load = Closed | Open | Replay


class Plan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One run. With two targets it is paired: requests alternate between them, ABBA."""

    targets: tuple[Target, ...]  # (proxied,) or (proxied, direct)
    workload: Workload
    load: Load
    timeout_s: float = 60.0  # for a connection, for a head, and between two pieces of a body
    max_time_s: float = 600.0  # for a whole answer
    sends_late: bool = True  # when the time is up, what waits for a free slot is still sent
    seed: int = 0

    @property
    def is_paired(self) -> bool:
        return len(self.targets) > 1


def encode_plan(plan: Plan) -> bytes:
    return _encoder.encode(plan)


def decode_plan(data: bytes) -> Plan:
    return _decoder.decode(data)


def _encode_secret(value: Any) -> Any:
    if isinstance(value, Secret):
        return value.reveal()
    raise NotImplementedError


def _decode_secret(kind: type, value: Any) -> Any:
    if kind is Secret:
        return Secret(value)
    raise NotImplementedError


_encoder: Final = msgspec.msgpack.Encoder(enc_hook=_encode_secret)
_decoder: Final = msgspec.msgpack.Decoder(Plan, dec_hook=_decode_secret)
