from __future__ import annotations

from xml.etree import ElementTree

from llm_proxy.benchmark.junit_report import junit
from llm_proxy.benchmark.report import Check
from tests.benchmark.reports import make_report, make_stream_report


def _check(*, passed: bool, message: str = "it is", name: str = "p99<=50ms") -> Check:
    return Check(kind="slo", name=name, passed=passed, message=message)


def test_each_check_is_a_test_case() -> None:
    document = junit(make_report(checks=(_check(passed=True), _check(passed=False, name="x"))))
    root = ElementTree.fromstring(document)
    suite = root[0]
    assert document.startswith(b"<?xml")
    for element in (root, suite):
        assert (element.get("tests"), element.get("failures")) == ("2", "1")
    good, bad = suite.findall("testcase")
    assert (good.get("name"), good.find("failure")) == ("p99<=50ms", None)
    assert good.get("classname") == "llm-proxy.benchmark.slo"
    failure = bad.find("failure")
    assert failure is not None
    assert (failure.get("message"), failure.text) == ("it is", "it is")


def test_no_check_is_an_empty_suite() -> None:
    root = ElementTree.fromstring(junit(make_report(checks=())))
    assert (root.get("tests"), root.findall(".//testcase")) == ("0", [])


def test_the_main_figures_are_properties() -> None:
    root = ElementTree.fromstring(junit(make_stream_report()))
    properties = {it.get("name"): it.get("value") for it in root.iter("property")}
    assert properties["seed"] == "42"
    assert properties["rps"] == "199.8 requests/s"
    assert properties["added.typical"] == "9.8 ms"
    assert "ttft.p50" in properties
    root = ElementTree.fromstring(junit(make_report()))
    assert "ttft.p50" not in {it.get("name") for it in root.iter("property")}


def test_any_text_is_valid_xml() -> None:
    text = 'a<b> & "c" ]]> \x00\x1b[31m é \ud800'
    report = make_report(command=text, checks=(_check(passed=False, message=text, name=text),))
    root = ElementTree.fromstring(junit(report))
    shown = 'a<b> & "c" ]]> \ufffd\ufffd[31m é \ufffd'
    assert root.findtext(".//failure") == shown
    assert next(root.iter("testcase")).get("name") == shown
