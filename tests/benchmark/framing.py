"""Frames of a generator that never was, for the tests of everything that folds them."""

from __future__ import annotations

from array import array
from collections.abc import Iterable

from llm_proxy.benchmark.plan import PROXIED, Closed, Load, Plan, Target, Workload
from llm_proxy.benchmark.samples import (
    NONE,
    OK,
    TICKS_PER_MS,
    TICKS_PER_S,
    Frame,
    Gaps,
    RigFigures,
    Samples,
    new_samples,
)

MS = TICKS_PER_MS
SECOND = TICKS_PER_S

Row = dict[str, int]


def row(
    lane: int = PROXIED, *, due: int = 0, service: int = 10 * MS, outcome: int = OK, **more: int
) -> Row:
    """Times in ticks."""
    fields = dict.fromkeys(Samples.__struct_fields__, NONE)
    plain = {"status": 200, "late": 0, "tokens": 0, "stalls": 0, "received": 100, "sent": 50}
    known = {"lane": lane, "due": due, "service": service, "outcome": outcome}
    return fields | {"digest": 0, "body": 0} | plain | known | more


def ended(at: int, lane: int = PROXIED, *, service: int = 10 * MS, **more: int) -> Row:
    return row(lane, due=at - service, service=service, **more)


def samples_of(rows: Iterable[Row]) -> Samples:
    samples = new_samples()
    for one in rows:
        for name, value in one.items():
            getattr(samples, name).append(value)
    return samples


def frame_of(
    rows: Iterable[Row],
    *,
    at: int = SECOND,
    process: int = 0,
    in_flight: int = 0,
    gaps: Iterable[int] = (),
    direct_gaps: Iterable[int] = (),
) -> Frame:
    return Frame(
        process=process,
        at=at,
        in_flight=in_flight,
        samples=samples_of(rows),
        gaps=Gaps(proxied=array("q", gaps), direct=array("q", direct_gaps)),
    )


def plan_of(
    load: Load | None = None,
    *,
    is_paired: bool = False,
    workload: Workload | None = None,
    seed: int = 1,
) -> Plan:
    target = Target(base_url="http://127.0.0.1:1")
    return Plan(
        targets=(target, target) if is_paired else (target,),
        workload=workload or Workload(),
        load=load or Closed(concurrency=10, requests=100),
        seed=seed,
    )


def figures_of(**changes: float) -> RigFigures:
    fields: dict[str, float] = {
        **{"process": 0, "cpu_s": 1.0, "wall_s": 10.0, "reconnects": 0, "connects": 10},
        **{"lag_ticks": 1000, "lag_p50_ms": 0.1, "lag_p99_ms": 0.5, "lag_max_ms": 2.0},
        **{"unsent": 0, "blocked": 0, "late_p99_ms": 0.0},
    }
    return RigFigures(**(fields | changes))  # type: ignore[arg-type]
