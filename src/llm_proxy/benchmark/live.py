"""What is shown while a run is under way."""

from __future__ import annotations

import msgspec


class Live(msgspec.Struct, frozen=True, kw_only=True):
    """Percentiles and the rate are those of the last seconds; counts are of the whole run."""

    elapsed_s: float
    requests: int
    errors: int
    rate: float  # requests a second
    p50_ms: float | None
    p99_ms: float | None
    in_flight: int
    direct_p50_ms: float | None = None
    direct_p99_ms: float | None = None
    ttft_p50_ms: float | None = None
    rates: tuple[float, ...] = ()  # of each second so far, 600 at most, the last one at the end
