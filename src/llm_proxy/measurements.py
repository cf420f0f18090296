"""What a process counted, as it is sent from one to another, and the sums of many."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import msgspec

# Seconds. Time to the first token and whole answers lie between 0.1 and 60; a refusal below 0.001.
DURATION_BOUNDS: Final = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0),
)
LAG_BOUNDS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)

Key = tuple[str, tuple[str, ...]]  # name of the family, values of its labels
_SEVERITY: Final = {"closed": 0, "half_open": 1, "open": 2}


class Series(msgspec.Struct, frozen=True, array_like=True):
    name: str
    labels: tuple[str, ...]
    value: int | float


class Distribution(msgspec.Struct, frozen=True, array_like=True):
    name: str
    labels: tuple[str, ...]
    bounds: tuple[float, ...]  # upper ones, inclusive
    counts: tuple[int, ...]  # one for each bound, and one for what is above them all
    total: float


class Circuit(msgspec.Struct, frozen=True, array_like=True):
    """The worst of an api's circuit breakers."""

    api: str
    state: str  # closed, half_open or open
    reason: str  # of its last failure; empty: there was none
    failed_at: float  # Unix seconds

    @property
    def badness(self) -> tuple[int, float]:
        return _SEVERITY[self.state], self.failed_at


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    counters: tuple[Series, ...] = ()  # these only rise
    gauges: tuple[Series, ...] = ()
    peaks: tuple[Series, ...] = ()  # gauges of which the highest is told, not the sum
    distributions: tuple[Distribution, ...] = ()
    circuits: tuple[Circuit, ...] = ()


def worst_circuit(circuits: Iterable[Circuit]) -> Circuit | None:
    return max(circuits, key=lambda circuit: circuit.badness, default=None)


@dataclass(slots=True)
class Totals:
    counters: dict[Key, int | float] = field(default_factory=dict)
    gauges: dict[Key, int | float] = field(default_factory=dict)
    distributions: dict[Key, Distribution] = field(default_factory=dict)
    circuits: dict[str, Circuit] = field(default_factory=dict)  # by name of the api

    def copy(self) -> Totals:
        return Totals(
            self.counters.copy(),
            self.gauges.copy(),
            self.distributions.copy(),
            self.circuits.copy(),
        )

    def add_history(self, snapshot: Snapshot) -> None:
        """What remains true of a process that has ended."""
        for series in snapshot.counters:
            key = series.name, series.labels
            self.counters[key] = self.counters.get(key, 0) + series.value
        for distribution in snapshot.distributions:
            key = distribution.name, distribution.labels
            known = self.distributions.get(key)
            self.distributions[key] = distribution if known is None else _sum(known, distribution)

    def add(self, snapshot: Snapshot) -> None:
        """All of a process that runs."""
        self.add_history(snapshot)
        for series in snapshot.gauges:
            key = series.name, series.labels
            self.gauges[key] = self.gauges.get(key, 0) + series.value
        for series in snapshot.peaks:
            key = series.name, series.labels
            self.gauges[key] = max(self.gauges.get(key, 0), series.value)
        for circuit in snapshot.circuits:
            known = self.circuits.get(circuit.api, circuit)
            self.circuits[circuit.api] = max(known, circuit, key=lambda one: one.badness)


def _sum(one: Distribution, other: Distribution) -> Distribution:
    counts = tuple(a + b for a, b in zip(one.counts, other.counts, strict=True))
    return msgspec.structs.replace(one, counts=counts, total=one.total + other.total)
