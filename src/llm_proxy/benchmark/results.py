"""Everything that was measured in one run, under the names it has in the report."""

from __future__ import annotations

import msgspec

from llm_proxy.benchmark.hdr_histogram import HdrHistogram
from llm_proxy.benchmark.report import Added, Fidelity, HangUps, RigVerdict, Second, Side, Spread


class Results(msgspec.Struct, frozen=True, kw_only=True):
    side: Side
    direct: Side | None
    added_latency_ms: Added | None
    added_ttft_ms: Added | None
    added_inter_token_ms: Added | None
    fidelity: Fidelity | None
    rig: RigVerdict
    series: tuple[Second, ...]
    spread: dict[str, Spread]
    hang_ups: HangUps | None = None
    histograms: dict[str, HdrHistogram]  # by tag: proxied.latency, proxied.service, direct.…
