"""Messages between the supervisor and a gateway worker, over one Unix stream socket.

Each message is one line of JSON. The supervisor's first is `Configure`; the worker answers
`Ready` or `Failed`, and accepts no connection before `Serve`. An `Invalidate` is answered with
`Acknowledge` once no request can be admitted on the old state any more, a `Collect` with
`Measured`, which a worker also sends unasked. EOF from the supervisor means: drain and exit.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from llm_proxy.client_limits import ClientLimits
from llm_proxy.http1.egress import Egress
from llm_proxy.limits import RateLimit
from llm_proxy.measurements import Snapshot
from llm_proxy.providers import Providers
from llm_proxy.secrets import Secret

MAX_MESSAGE_BYTES: Final = 64 << 20  # as a reader's limit


class Change(msgspec.Struct, frozen=True):
    """A row of the `changes` table: what was altered."""

    kind: str  # "token" or "project"
    id: str


class WorkerConfig(msgspec.Struct, frozen=True, kw_only=True):
    database: Secret  # path or URL
    encryption_key: Secret
    host: str = ""  # whose leases this worker's are
    holder: str = ""  # the worker to the store: a name that no other ever has
    ledger: str = ""  # path of the file that the worker makes, and keeps what it spends in
    providers: Providers
    control_socket: str  # path of the control plane's private socket
    events_socket: str | None  # path of the record writer's socket
    management_is_public: bool  # False: only the probes are forwarded to the control plane
    max_request_size: int  # bytes
    debug_headers: bool
    metrics_path: str | None = None  # None: there are no metrics
    client_limits: ClientLimits = ClientLimits()
    limit_sharers: int = 0  # workers that count together, by the supervisor; 0: this one alone
    tls_cert: str | None = None  # paths of PEM files, both or neither
    tls_key: str | None = None
    proxy_protocol: bool = False
    trusted_proxies: tuple[str, ...] = ()
    egress: Egress = Egress()
    store_grace: float = 60.0  # seconds
    log_level: str = "info"
    log_format: str = "auto"
    log_file: str | None = None  # None: stderr


class Configure(msgspec.Struct, frozen=True, tag="configure"):
    config: WorkerConfig


class Invalidate(msgspec.Struct, frozen=True, tag="invalidate"):
    sequence: int
    changes: list[Change]


class Serve(msgspec.Struct, frozen=True, tag="serve"):
    """Every worker of this configuration is ready: accept connections from now on."""


class Drain(msgspec.Struct, frozen=True, tag="drain"):
    """May come again: the last one counts."""

    timeout_s: float
    idle_grace_s: float  # for a request that was on its way to a kept connection


class Collect(msgspec.Struct, frozen=True, tag="collect"):
    sequence: int  # from 1


class StoreState(msgspec.Struct, frozen=True, tag="store_state"):
    """Whether the supervisor reaches the database; while not, or while it says nothing, changes
    may be missed."""

    is_lost: bool


class RateGranted(msgspec.Struct, frozen=True, array_like=True):
    key: str
    permits: int
    valid_until: int  # of `time.monotonic_ns()`
    wait_s: float  # 0: it isn't this that refused


class SlotsGranted(msgspec.Struct, frozen=True, array_like=True):
    key: str
    count: int
    is_full: bool  # it is this that refused


class GrantedLimits(msgspec.Struct, frozen=True, array_like=True):
    """Of one `LimitsWanted`, in the same order: all of it, or nothing."""

    rates: tuple[RateGranted, ...]
    slots: tuple[SlotsGranted, ...]
    is_unavailable: bool


class ShareLimits(msgspec.Struct, frozen=True, tag="share_limits"):
    """From now on other workers count too; the answer is `LimitsState`."""

    sharers: int


class LimitsAnswer(msgspec.Struct, frozen=True, tag="limits_answer"):
    sequence: int
    granted: tuple[GrantedLimits, ...]


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    pid: int


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    message: str


class Acknowledge(msgspec.Struct, frozen=True, tag="acknowledge"):
    sequence: int


class Measured(msgspec.Struct, frozen=True, tag="measured"):
    sequence: int  # 0: nobody asked
    snapshot: Snapshot


class RateWanted(msgspec.Struct, frozen=True, array_like=True):
    key: str
    rate: RateLimit
    permits: int


class SlotsWanted(msgspec.Struct, frozen=True, array_like=True):
    key: str
    most: int
    count: int


class LimitsWanted(msgspec.Struct, frozen=True, array_like=True):
    """What one request needs: fewer permits or slots than wanted will do, but some of each."""

    rates: tuple[RateWanted, ...]
    slots: tuple[SlotsWanted, ...]


class AskLimits(msgspec.Struct, frozen=True, tag="ask_limits"):
    """A worker asks again when it has the answer; what it gives back needs none."""

    sequence: int  # 0: nothing is wanted
    wanted: tuple[LimitsWanted, ...] = ()
    given_rates: tuple[tuple[str, RateLimit, int, float], ...] = ()  # permits, age in seconds
    given_slots: tuple[tuple[str, int], ...] = ()


class LimitsState(msgspec.Struct, frozen=True, tag="limits_state"):
    """What a worker had counted by itself."""

    rates: tuple[tuple[str, RateLimit, int], ...] = ()  # nanoseconds until all is free again
    slots: tuple[tuple[str, int], ...] = ()


class RefusalCount(msgspec.Struct, frozen=True, array_like=True):
    """Empty where it isn't known."""

    code: str
    token_id: str
    project_id: str
    client_ip: str
    count: int


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """Of about a second."""

    counts: list[RefusalCount]
    others: dict[str, int]  # by code


ToWorker = (
    Configure | Serve | Invalidate | StoreState | Drain | Collect | LimitsAnswer | ShareLimits
)
FromWorker = Ready | Failed | Acknowledge | Measured | Refused | AskLimits | LimitsState


def _encode_secret(value: Any) -> Any:
    if isinstance(value, Secret):
        return value.reveal()
    raise NotImplementedError(type(value))


def _decode_secret(kind: type, value: Any) -> Any:
    if kind is Secret:
        return Secret(value)
    raise NotImplementedError(kind)


_encoder = msgspec.json.Encoder(enc_hook=_encode_secret)
decode_to_worker = msgspec.json.Decoder(ToWorker, dec_hook=_decode_secret).decode
decode_from_worker = msgspec.json.Decoder(FromWorker).decode


def encode(message: ToWorker | FromWorker) -> bytes:
    """The message as one line."""
    return _encoder.encode(message) + b"\n"
