from __future__ import annotations

import msgspec

from llm_proxy.benchmark.collector import Collector
from llm_proxy.benchmark.report import Report
from llm_proxy.benchmark.results import Results
from tests.benchmark.framing import frame_of, plan_of, row


def test_fields_have_the_names_of_the_report() -> None:
    own = {"side", "histograms"}
    assert {field.name for field in msgspec.structs.fields(Results)} - own <= {
        field.name for field in msgspec.structs.fields(Report)
    }


def test_histograms_are_named_by_their_lane() -> None:
    collector = Collector(plan_of())
    collector.add(frame_of([row()] * 3))
    assert collector.results([]).histograms["proxied.latency"].count == 3
