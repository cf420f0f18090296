"""What is written must be so: README, the shipped env file, the table of settings."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.core import TyperGroup

from llm_proxy.cli.commands import COMMANDS, load_command
from llm_proxy.setting import SETTINGS
from llm_proxy.setting_docs import env_example, settings_table

ROOT = Path(__file__).parents[1]


def _leaves(command: object, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    if isinstance(command, TyperGroup):
        for name, child in command.commands.items():
            yield from _leaves(child, (*path, name))
    else:
        yield path


def _all_commands() -> list[tuple[str, ...]]:
    return [leaf for name in COMMANDS for leaf in _leaves(load_command(name), (name,))]


@pytest.mark.parametrize("setting", [setting.env for setting in SETTINGS])
def test_readme_lists_every_setting(setting: str) -> None:
    assert f"`{setting}`" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("command", _all_commands(), ids=" ".join)
def test_readme_lists_every_command(command: tuple[str, ...]) -> None:
    """In a row of the table that begins with the words before its last."""
    words = set()
    for line in (ROOT / "README.md").read_text().splitlines():
        row = re.findall(r"[a-z]+(?:-[a-z]+)*", line) if line.startswith("| `") else []
        if tuple(row[: len(command) - 1]) == command[:-1]:
            words.update(row[len(command) - 1 :])
    assert command[-1] in words


def test_shipped_env_file_is_up_to_date() -> None:
    assert (ROOT / ".env.example").read_text() == env_example(), "run scripts/generate"


def test_documented_settings_are_up_to_date() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text()
    assert settings_table() in text, "run scripts/generate"


def test_links_between_documents_lead_somewhere() -> None:
    for document in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_every_test_of_the_table_of_faults_exists() -> None:
    """Those without a folder are the gateway's."""
    table = (ROOT / "docs" / "reliability.md").read_text()
    named = re.findall(r"`((?:\w+/)*test_\w+\.py)(?:::(\w+))?`", table)
    assert len(named) == table.count(".py") > 100
    missing = []
    for path, test in named:
        file = ROOT / "tests" / (path if "/" in path else f"server/gateway/{path}")
        text = file.read_text() if file.exists() else ""
        if not re.search(rf"^(async )?def {test}\b" if test else ".", text, re.MULTILINE):
            missing.append(f"{path}::{test}")
    assert missing == []


def test_server_starts_with_the_env_file_as_shipped(tmp_path: Path) -> None:
    environ = {**os.environ, "LLM_PROXY_HOME": str(tmp_path)}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "llm_proxy", "server", *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            env=environ,
        )

    example = str(ROOT / ".env.example")
    try:
        started = run("start", "--daemon", "--env", example, "--addr", "127.0.0.1:0")
        assert started.returncode == 0, started.stderr
        assert json.loads(run("status", "--json").stdout)["running"] is True
    finally:
        run("stop", "--timeout", "1")
