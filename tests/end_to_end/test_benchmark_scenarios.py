"""The commands in docs/benchmark.md, each for a moment, against one server in front of the mock."""

from __future__ import annotations

import json
import re
import shlex
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_proxy.benchmark.presets import PRESETS
from llm_proxy.cli.benchmark_target import Targets
from llm_proxy.cli.benchmark_throwaway import throwaway_targets
from llm_proxy.cli.main import run

DOCUMENT = Path(__file__).parents[2] / "docs" / "benchmark.md"
TRACE = '{"timestamp": 0, "input_length": 5}\n{"timestamp": 200, "prompt": "Hello"}\n'
TOKENS = 3


def documented() -> dict[str, list[str]]:
    """The arguments of each scenario, by its name."""
    section = DOCUMENT.read_text().partition("\n## Scenarios\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([^|]+) \| `llm-proxy benchmark ([^`]+)` \|", section, re.MULTILINE)
    return {name: shlex.split(arguments) for name, arguments in rows}


SCENARIOS = documented()


def test_scenarios_of_the_goal_are_documented() -> None:
    assert len(SCENARIOS) >= 16
    assert {"many keys", "large prompts", "soak", "agents", "recorded traffic"} <= set(SCENARIOS)


@pytest.fixture(scope="module")
def targets() -> Iterator[Targets]:
    with pytest.MonkeyPatch.context() as environment, tempfile.TemporaryDirectory() as folder:
        environment.setenv("XDG_RUNTIME_DIR", folder)  # sockets, whose paths must be short
        with throwaway_targets(PRESETS["chat"], tokens=TOKENS) as targets:
            yield targets


@pytest.fixture
def target(targets: Targets, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    assert targets.direct is not None
    monkeypatch.setenv("UPSTREAM_KEY", targets.direct.keys[0].reveal())
    return [
        *("--base-url", targets.proxied.base_url),
        *(word for key in targets.proxied.keys for word in ("--token", key.reveal())),
        *("--direct-url", targets.direct.base_url, "--direct-key-env", "UPSTREAM_KEY"),
    ]


def _shortened(arguments: list[str]) -> list[str]:
    """The last one of an option counts; the tokens are made already."""
    arguments = list(arguments)
    if "--tokens" in arguments:
        at = arguments.index("--tokens")
        del arguments[at : at + 2]
    short = ("--duration", "200ms") if "--rate" in arguments else ("--requests", "4")
    # Whom trouble befalls is by lot, and of so few requests it may be all.
    mild = ("--max-error-rate", "100%", "--timeout", "20s")
    return [*arguments, *short, *mild, "--warm-up", "0s", "--json"]


@pytest.mark.parametrize("name", SCENARIOS)
def test_documented_scenario_runs(
    name: str,
    target: list[str],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "trace.jsonl").write_text(TRACE)
    exit_code = run(["benchmark", *target, *_shortened(SCENARIOS[name])])
    printed = capsys.readouterr()
    assert exit_code == 0, printed.err
    report = json.loads(printed.out)
    assert report["requests"] == report["direct"]["requests"] > 1
    assert report["workload"]["tokens"] == TOKENS
    wanted = "replay" if name == "recorded traffic" else None
    assert wanted in (None, report["load"]["model"])
