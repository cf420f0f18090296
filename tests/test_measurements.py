from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.measurements import (
    Circuit,
    Distribution,
    Series,
    Snapshot,
    Totals,
    worst_circuit,
)

NAMES = st.sampled_from(["requests", "errors"])
LABELS = st.sampled_from([("openai",), ("anthropic",), ()])
COUNTERS = st.lists(st.builds(Series, NAMES, LABELS, st.integers(0, 10**12)), max_size=6)
DISTRIBUTIONS = st.lists(
    st.builds(
        Distribution,
        NAMES,
        LABELS,
        st.just((0.1, 1.0)),
        st.tuples(*[st.integers(0, 10**9)] * 3),
        st.floats(0, 1e9),
    ),
    max_size=4,
)
SNAPSHOTS = st.builds(
    Snapshot, counters=COUNTERS.map(tuple), distributions=DISTRIBUTIONS.map(tuple)
)


@given(st.lists(SNAPSHOTS, max_size=5))
def test_sums_are_exact(snapshots: list[Snapshot]) -> None:
    totals = Totals()
    for snapshot in snapshots:
        totals.add(snapshot)
    every = [series for snapshot in snapshots for series in snapshot.counters]
    assert sum(totals.counters.values()) == sum(series.value for series in every)
    counts = [sum(one.counts) for snapshot in snapshots for one in snapshot.distributions]
    assert sum(sum(one.counts) for one in totals.distributions.values()) == sum(counts)


@given(st.lists(SNAPSHOTS, min_size=1, max_size=4))
def test_the_history_of_a_process_keeps_its_counters(snapshots: list[Snapshot]) -> None:
    alive, ended = Totals(), Totals()
    for snapshot in snapshots:
        alive.add(snapshot)
        ended.add_history(snapshot)
    assert alive.counters == ended.counters
    assert alive.distributions == ended.distributions


def test_gauges_are_of_those_that_run() -> None:
    totals = Totals()
    running = Snapshot(
        gauges=(Series("open", (), 3),),
        peaks=(Series("lag", (), 0.5),),
        circuits=(Circuit("openai", "closed", "", 0.0),),
    )
    totals.add_history(running)
    assert (totals.gauges, totals.circuits) == ({}, {})
    totals.add(running)
    totals.add(msgspec.structs.replace(running, peaks=(Series("lag", (), 0.2),)))
    assert totals.gauges == {("open", ()): 6, ("lag", ()): 0.5}


def test_the_worst_circuit_is_told() -> None:
    closed, failed = Circuit("a", "closed", "", 0.0), Circuit("a", "closed", "status 500", 5.0)
    half_open, opened = Circuit("a", "half_open", "x", 1.0), Circuit("a", "open", "y", 0.5)
    assert worst_circuit([closed, opened, half_open]) == opened
    assert worst_circuit([closed, half_open, failed]) == half_open
    assert worst_circuit([failed, closed]) == failed
    assert worst_circuit([]) is None
    totals = Totals()
    for circuit in (closed, opened, half_open):
        totals.add(Snapshot(circuits=(circuit,)))
    assert totals.circuits == {"a": opened}


def test_a_copy_goes_its_own_way() -> None:
    totals = Totals()
    copy = totals.copy()
    copy.add(Snapshot(counters=(Series("a", (), 1),), gauges=(Series("b", (), 1),)))
    assert totals == Totals()


def test_a_snapshot_travels_as_json() -> None:
    snapshot = Snapshot(
        counters=(Series("a", ("x",), 1),),
        peaks=(Series("lag", (), 0.5),),
        distributions=(Distribution("d", (), (0.1,), (1, 2), 0.5),),
        circuits=(Circuit("openai", "open", "status 503", 1.5),),
    )
    assert msgspec.json.decode(msgspec.json.encode(snapshot), type=Snapshot) == snapshot
