"""`--find-max`: the highest rate that meets a service level."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from llm_proxy.benchmark.rate_search import RateSearch
from llm_proxy.benchmark.report import FindMax, Probe

MOST_PROBES: Final = 25


def meets_all(probe: Probe) -> bool:
    return probe.passed


def find_max(search: RateSearch, slo: Sequence[str]) -> FindMax:
    """What a search with the one limit `meets_all` found."""
    (answer,) = search.answers
    return FindMax(
        slo=tuple(slo),
        rate=answer.rate,
        confirmed=answer.confirmed,
        probes=tuple(search.probes),
        note=answer.note,
    )
