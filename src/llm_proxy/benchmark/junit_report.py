"""`--junit`: the checks as test cases, for the tables of CI systems."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from llm_proxy.benchmark.markup import writable
from llm_proxy.benchmark.metric import parse_metric
from llm_proxy.benchmark.report import Check, Report

_FIGURES: Final = (
    *("rps", "errors", "goodput", "mean", "p50", "p90", "p99", "max"),
    *("ttft.p50", "added.typical"),
)


def junit(report: Report) -> bytes:
    counts = {
        "tests": str(len(report.checks)),
        "failures": str(sum(not check.passed for check in report.checks)),
        "errors": "0",
        "time": f"{report.duration_s:.3f}",
    }
    suites = Element("testsuites", {"name": "llm-proxy benchmark", **counts})
    suite = SubElement(
        suites,
        "testsuite",
        {"name": "llm-proxy benchmark", "timestamp": report.started_at, "skipped": "0", **counts},
    )
    properties = SubElement(suite, "properties")
    for name, value in _properties(report):
        SubElement(properties, "property", {"name": name, "value": writable(value)})
    for check in report.checks:
        _add_case(suite, check)
    indent(suites)
    document: bytes = tostring(suites, encoding="utf-8", xml_declaration=True)
    return document + b"\n"


def _add_case(suite: Element, check: Check) -> None:
    attributes = {
        "classname": f"llm-proxy.benchmark.{check.kind}",
        "name": writable(check.name),
        "time": "0",
    }
    case = SubElement(suite, "testcase", attributes)
    message = writable(check.message)
    if check.passed:
        SubElement(case, "system-out").text = message
    else:
        SubElement(case, "failure", {"type": check.kind, "message": message}).text = message


def _properties(report: Report) -> Iterator[tuple[str, str]]:
    yield "command", report.command
    yield "seed", str(report.seed)
    yield "target", report.workload.base_url
    yield "endpoint", report.workload.endpoint
    yield "load", report.load.description
    yield "llm-proxy", report.environment.llm_proxy
    yield "rig", "; ".join((report.rig.verdict, *report.rig.reasons))
    yield "interrupted", str(report.interrupted).lower()
    for metric in map(parse_metric, _FIGURES):
        value = metric.value(report)
        if value is not None:
            yield metric.name, metric.show(value)
