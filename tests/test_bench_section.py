"""What scripts/bench writes into docs/performance.md is the figures, and only its own section."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import pytest


def _load() -> ModuleType:
    path = Path(__file__).parents[1] / "scripts" / "bench_section.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


section = _load()
ABOUT = {
    "date": "2026-01-02",
    "cpus": 2,
    "cpu": "Some CPU",
    "python": "3.11",
    "system": "Linux",
} | {
    "rounds": 3,
    "seconds": 5.0,
}


@dataclass
class Side:
    name: str
    version: str = "1.0"
    switched_on: dict[str, str] = field(default_factory=lambda: {"limits": "none"})


def test_section_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "doc.md"
    path.write_text("before\n<!-- bench:begin -->\nold\n<!-- bench:end -->\nafter\n")
    for _ in range(2):
        section.replace_section(path, "bench", "new\n")
    expected = "before\n<!-- bench:begin -->\nnew\n<!-- bench:end -->\nafter\n"
    assert path.read_text() == expected


def test_document_without_the_markers_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "doc.md"
    path.write_text("<!-- bench:begin -->\n")
    with pytest.raises(SystemExit, match="needs the lines"):
        section.replace_section(path, "bench", "new")
    assert path.read_text() == "<!-- bench:begin -->\n"


def test_document_has_the_markers() -> None:
    text = (Path(__file__).parents[1] / "docs" / "performance.md").read_text()
    for name in ("bench", "bench-generator"):
        assert text.count(f"<!-- {name}:begin -->") == text.count(f"<!-- {name}:end -->") == 1


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.001, "0"), (0.0456, "0.0456"), (9.876, "9.88"), (-3.14159, "-3.14")]
    + [(99.96, "100"), (123.4, "123"), (16_789.0, "16,800"), (1_234_567.0, "1,230,000")],
)
def test_figures_have_three_digits(value: float, text: str) -> None:
    assert section.three_digits(value) == text


def test_comparison_shows_each_figure_at_its_side() -> None:
    direct = {"problems": [], "c10_rps": 20_000.0, "c10_p50_ms": 0.5}
    proxied = {
        "problems": ["errors: 3 5xx", "rig-bound: late", "errors: 2 cut"],
        "c10_rps": 9_000.0,
        "c10_cpu_us": 60.0,
    }
    proxied |= {"added_ms": 0.0812, "added_ci95_ms": [0.08, 0.083], "same_bytes": True}
    sides = [Side("direct"), Side("llm-proxy")]
    text = section.comparison(sides, {"direct": direct, "llm-proxy": proxied}, ABOUT)
    lines = text.splitlines()
    assert "|  | direct 1.0 | llm-proxy 1.0 |" in lines
    assert "| added latency, 1 connection, µs | – | 81.2 |" in lines
    assert "| … 95 % intervals of all rounds, µs | – | 80 to 83 |" in lines
    assert "| requests/s, 10 connections | 20,000 | 9,000 |" in lines
    assert "| CPU a request, µs, 10 | – | 60 |" in lines
    assert "| answers are the same bytes as direct | – | yes |" in lines
    assert "| limits | none | none |" in lines
    assert "- llm-proxy: errors in 2 runs, such as 3 5xx" in lines
    assert "- llm-proxy: rig-bound in 1 run, such as late" in lines
    assert "medians of 3 rounds, 5 s for each" in text


def test_generators_stand_beside_each_other() -> None:
    rows = [{"name": "wrk", "rps": 54_321.0, "p50_us": 26.0, "p99_us": 40.0}]
    assert "| wrk | 54,300 | 26 | 40 |" in section.generator_section(rows, ABOUT).splitlines()
