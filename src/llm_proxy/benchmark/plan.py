"""What the generator is told to do: immutable, and able to travel to its processes."""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec

from llm_proxy.secrets import Secret

PROXIED: Final = 0  # the lane of the target, and of the direct baseline beside it
DIRECT: Final = 1
LANES: Final = ("proxied", "direct")

Wire = Literal["plain", "stream"]


class Target(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One side of a run; requests take its keys in turn."""

    base_url: str  # http(s)://HOST[:PORT][/PREFIX], without a slash at its end
    keys: tuple[Secret, ...] = ()
    key_header: str = "Authorization"
    key_scheme: str = "Bearer"  # "": the bare key
    ca_file: str | None = None


class Workload(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The requests: one for each body, sent in a seeded order that is the same on both sides."""

    method: str = "POST"
    endpoint: str = "/v1/chat/completions"
    headers: tuple[tuple[str, str], ...] = ()
    bodies: tuple[bytes, ...] = (b"",)
    is_stream: bool = False
    cancel_rate: float = 0.0  # the share of streams that are hung up on, 0 to 1
    checks_fidelity: bool = True  # answers to the same body must be the same bytes on both sides


class Closed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="closed"):
    """As many requests as are answered: each connection sends its next one when it has the last."""

    concurrency: int
    requests: int | None = None  # ends after as many, or
    duration_s: float | None = None  # … after so long; never both None


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


Load = Closed | Open


class Plan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One run. With two targets it is paired: requests alternate between them, ABBA."""

    targets: tuple[Target, ...]  # (proxied,) or (proxied, direct)
    workload: Workload
    load: Load
    timeout_s: float = 60.0  # for a connection, for a head, and between two pieces of a body
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
