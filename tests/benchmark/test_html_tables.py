from __future__ import annotations

import pytest

from llm_proxy.benchmark.html_tables import counted, difference, distributions, facts, mark, table
from llm_proxy.benchmark.report import Added
from tests.benchmark.reports import make_added, make_distribution


def test_the_first_cell_of_a_row_names_it() -> None:
    element = table(["", "then"], [["p50", "1 ms"]])
    assert [(it.text, it.get("scope")) for it in element.iter("th")] == [
        ("", "col"),
        ("then", "col"),
        ("p50", "row"),
    ]
    assert [it.text for it in element.iter("td")] == ["1 ms"]


def test_only_what_was_measured_has_a_row() -> None:
    element = distributions({"latency": make_distribution(0.5), "direct": None})
    rows = list(element.iter("tr"))
    assert [it.text for it in rows[0]][1:] == [
        *("mean", "p50", "p75", "p90", "p95", "p99", "p99.9", "max")
    ]
    assert [row[0].text for row in rows[1:]] == ["latency"]
    assert rows[1][2].text == "500 µs"


def test_facts_that_are_none_are_left_out() -> None:
    element = facts({"seed": "42", "load average": None})
    assert [it.text for it in element.iter()] == [None, None, "seed", "42"]


@pytest.mark.parametrize(
    ("added", "words"),
    [
        (make_added(0.11), "The proxy adds 110 µs to it (95 %: 101 µs to 119 µs, p < 0.001)."),
        (make_added(-2.0), "The proxy takes away 2.0 ms to it"),
        (make_added(0.11, found=False), "No difference was found to it (95 %: -200 µs to 400 µs, "),
    ],
)
def test_a_difference_is_claimed_only_when_it_was_found(added: Added, words: str) -> None:
    assert "".join(difference("to it", added).itertext()).startswith(words)


def test_a_mark_is_a_word_too() -> None:
    assert [(mark(it).text, mark(it).get("class")) for it in (True, False)] == [
        ("✓ ok", "pass"),
        ("✗ failed", "fail"),
    ]


def test_one_is_not_many() -> None:
    assert [counted(1, "body|bodies"), counted(2, "body|bodies")] == ["1 body", "2 bodies"]
    assert [counted(1, "token"), counted(2000, "token")] == ["1 token", "2,000 tokens"]
