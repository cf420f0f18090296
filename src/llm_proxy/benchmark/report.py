"""The report of a benchmark: what `--json` prints, and what every other format is made of.

Times are milliseconds, `_s` seconds; None (null) is "not measured". Fields are only ever added.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

SCHEMA_VERSION: Final = 1
PERCENTILES: Final = ("p50", "p75", "p90", "p95", "p99", "p99.9")


class Distribution(msgspec.Struct, frozen=True, kw_only=True):
    count: int
    mean: float
    min: float
    p50: float
    p75: float
    p90: float
    p95: float
    p99: float
    p99_9: float = msgspec.field(name="p99.9")
    max: float


class Added(Distribution, frozen=True, kw_only=True):
    """The differences of pairs, proxied minus direct."""

    typical: float  # the mean of the medians of consecutive blocks of pairs
    ci95: tuple[float, float]  # of `typical`, by bootstrap over the blocks
    p_value: float  # that it is 0, by permutation (sign flips of blocks)
    blocks: int

    @property
    def is_found(self) -> bool:
        return self.p_value < 0.05 and not self.ci95[0] <= 0 <= self.ci95[1]


class Histogram(msgspec.Struct, frozen=True, kw_only=True):
    """Bins of equal width on a logarithmic axis: `counts[i]` from `edges_ms[i]` to the next."""

    edges_ms: tuple[float, ...]  # one more than counts
    counts: tuple[int, ...]


class Fidelity(msgspec.Struct, frozen=True, kw_only=True):
    """Whether answers to the same body were the same bytes through the proxy and direct."""

    verdict: Literal["equal", "different", "not comparable"]
    reason: str | None = None  # of "not comparable", such as an upstream that never repeats itself
    compared: int = 0  # answers through the proxy that were compared
    different: int = 0
    bodies: tuple[int, ...] = ()  # which request bodies (from 0) got a different answer, 10 at most


class Streams(msgspec.Struct, frozen=True, kw_only=True):
    ttft_ms: Distribution | None  # to the first token
    second_token_ms: Distribution | None
    inter_token_ms: Distribution | None
    tokens: int
    tokens_per_second: float  # over the run
    tokens_per_second_per_stream: Distribution | None  # (tokens - 1) / time after the first
    stalls: int  # gaps over ten times the median of their stream, and over 10 ms
    stalled_streams: int
    cut: int  # streams that broke off
    broken: int  # … that ended without their last event, or with an error event
    cancelled: int


class ServerTiming(msgspec.Struct, frozen=True, kw_only=True):
    """What the answers' Server-Timing said, beside what was seen from outside."""

    answers: int  # that had it
    proxy_ms: Distribution
    upstream_ms: Distribution
    unexplained_ms: Distribution  # what was seen minus both: the network, and the generator
    seen: Literal["service", "first byte"] = "service"  # of streams, which go on after the head
    seen_ms: Distribution | None = None  # of the same answers
    excessive: int = 0  # answers that told of more time than was seen; nothing is unexplained then


class Goodput(msgspec.Struct, frozen=True, kw_only=True):
    """The requests of one side that met every limit of --goodput, each by itself."""

    limits: tuple[str, ...]  # latency<=50ms
    requests: int  # that met them
    share: float  # of all but the cancelled ones; 1 only if none missed them
    requests_per_second: float


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """One target of a run. Percentiles are over requests that were answered below 400."""

    requests: int  # that ended, cancelled ones included
    errors: int
    error_rate: float  # 0 to 1
    cancelled: int
    duration_s: float
    requests_per_second: float  # answered below 400
    latency_ms: Distribution | None  # from the intended start (coordinated omission corrected)
    service_ms: Distribution | None  # from sending
    first_byte_ms: Distribution | None
    statuses: dict[str, int]  # "2xx": 100
    status_codes: dict[str, int]  # "200": 100
    error_kinds: dict[str, int]  # "connect timeout reset cut 4xx 5xx broken stream unsent"
    bytes_sent: int
    bytes_received: int
    streams: Streams | None
    server_timing: ServerTiming | None
    histogram: Histogram | None  # of latency_ms
    cdf: tuple[tuple[float, float], ...]  # (ms, share of requests at most as slow), 200 at most
    goodput: Goodput | None = None


class Second(msgspec.Struct, frozen=True, kw_only=True):
    """One slice of the run."""

    at_s: float  # its beginning
    length_s: float
    requests: int
    errors: int
    requests_per_second: float
    p50_ms: float | None
    p99_ms: float | None
    in_flight: int
    direct_p50_ms: float | None = None
    direct_p99_ms: float | None = None


class HangUps(msgspec.Struct, frozen=True, kw_only=True):
    """Of the proxied lane: answers that the generator didn't wait for."""

    sent: int
    seen_upstream: int | None  # None: this upstream can't be asked


class ProcessUsage(msgspec.Struct, frozen=True, kw_only=True):
    """Of the target's processes, on this machine."""

    pids: tuple[int, ...]
    cpu_s: float
    cpu_us_per_request: float
    memory_before_mib: float
    memory_peak_mib: float
    memory_after_mib: float
    memory_kind: Literal["pss", "rss"] = "rss"  # shared pages: in proportion, or whole each time
    core_hours_per_million: float | None = None  # requests
    # Of runs of 20 s and more; the growth of those of a minute:
    memory_steady_mib: float | None = None  # the median of the run's second half
    memory_growth_mib_per_min: float | None = None  # after the run's first quarter
    memory_recovered_mib: float | None = None  # after some seconds without load


class RigVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the figures are the target's, or the generator's own."""

    verdict: Literal["ok", "rig-bound"]
    reasons: tuple[str, ...]  # a sentence each
    processes: int
    cpu_share: float  # of the busiest generator process, 0 to 1
    loop_lag_p50_ms: float
    loop_lag_p99_ms: float
    loop_lag_max_ms: float
    late_ms: Distribution | None  # sending after the intended start, in an open load
    unsent: int
    reconnects: int
    lost: int = 0  # processes that ended before the run did
    waited_share: float = 0.0  # of the time, in which the worst of them was ready but had no core
    mock_cpu_share: float | None = None  # of a core; of the throw-away mock


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One of several repeats."""

    requests: int
    errors: int
    requests_per_second: float
    latency_ms: Distribution | None
    added_typical_ms: float | None = None
    goodput_share: float | None = None


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """The least and the most of one figure over the repeats, or the slices of one run."""

    low: float
    high: float


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """A rate that was tried by --find-max or --frontier."""

    rate: float
    requests_per_second: float
    passed: bool  # of --frontier: the limits beside those of p99
    reason: str  # the limit that was missed, with its value
    latency_ms: Distribution | None
    rig_bound: bool
    is_confirmation: bool = False


class FindMax(msgspec.Struct, frozen=True, kw_only=True):
    slo: tuple[str, ...]
    rate: float | None  # the highest that met them; None: not even the lowest tried
    confirmed: bool
    probes: tuple[Probe, ...]
    note: str  # a sentence: confirmed, contradicted, or bound by the rig


class FrontierPoint(msgspec.Struct, frozen=True, kw_only=True):
    """One limit of --frontier, and the highest rate that kept it."""

    p99_limit_ms: float  # of the latency
    rate: float | None  # asked for; None: no rate that was tried kept the limit
    requests_per_second: float | None  # answered, in the last window at that rate that kept it
    latency_ms: Distribution | None  # … of that window
    confirmed: bool
    is_noisy: bool  # lower rates missed the limit, or higher ones kept it
    note: str  # sentences: confirmed, contradicted, bound by the rig; noise


class Frontier(msgspec.Struct, frozen=True, kw_only=True):
    points: tuple[FrontierPoint, ...]  # the strictest limit first; their rates never fall
    probes: tuple[Probe, ...]  # in their order; each tells of every limit
    note: str


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """A limit that was asked for, or that a run always has: no lost generator process."""

    kind: Literal["slo", "error-rate", "regression", "rig"]
    name: str  # p99<=50ms
    passed: bool
    message: str


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One figure beside that of the report compared with."""

    metric: str
    old: float
    new: float
    change: float | None  # 0.1: 10 % more; None: it was 0


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    file: str
    started_at: str
    changes: tuple[Change, ...]
    warnings: tuple[str, ...]  # what makes the two hard to compare


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    llm_proxy: str
    python: str
    system: str
    machine: str
    cpu: str
    cpus: int
    memory_mib: int
    load_average: tuple[float, float, float] | None
    event_loop: str


LoadModel = Literal["closed", "constant", "poisson", "stages", "replay", "find-max", "frontier"]


class LoadDescription(msgspec.Struct, frozen=True, kw_only=True):
    model: LoadModel
    description: str  # for people: "closed, 10 connections, 10 s"
    concurrency: int | None
    rate: float | None
    processes: int
    warm_up_s: float


class WorkloadDescription(msgspec.Struct, frozen=True, kw_only=True):
    base_url: str
    direct_url: str | None
    method: str
    endpoint: str
    preset: str | None
    stream: bool
    bodies: int
    tokens: int  # how many keys take turns
    is_throwaway: bool  # the built-in mock behind a server started for this run
    cancel_rate: float


class Report(Side, frozen=True, kw_only=True):
    """The side that was asked for, and everything around it."""

    schema_version: int = SCHEMA_VERSION
    command: str  # secrets masked
    seed: int
    started_at: str  # RFC 3339
    interrupted: bool
    environment: Environment
    load: LoadDescription
    workload: WorkloadDescription
    rig: RigVerdict
    series: tuple[Second, ...]
    spread: dict[str, Spread]  # by metric: requests_per_second, latency_ms.p50 …
    direct: Side | None = None
    added_latency_ms: Added | None = None
    added_ttft_ms: Added | None = None
    added_inter_token_ms: Added | None = None
    fidelity: Fidelity | None = None
    process: ProcessUsage | None = None
    hang_ups: HangUps | None = None  # of --cancel-rate
    runs: tuple[Run, ...] = ()  # of --repeat: the figures above are those of the median run
    find_max: FindMax | None = None
    frontier: Frontier | None = None
    checks: tuple[Check, ...] = ()
    comparison: Comparison | None = None

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)


def encode_report(report: Report) -> bytes:
    """Indented JSON."""
    return msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n"


def decode_report(data: bytes) -> Report:
    """Raises msgspec.DecodeError; unknown fields are of later versions."""
    return _decoder.decode(data)


_decoder: Final = msgspec.json.Decoder(Report)
