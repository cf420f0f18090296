from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from llm_proxy.cli.completions import SHELLS, VARIABLE, wanted_shell

ROOT = Path(__file__).parents[2]


def _run(**environ: str) -> str:
    process = subprocess.run(
        [sys.executable, "-m", "llm_proxy"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **environ},
    )
    return process.stdout


@pytest.mark.parametrize("shell", SHELLS)
def test_shipped_script_is_what_the_command_prints(shell: str) -> None:
    shipped = (ROOT / "completions" / f"llm-proxy.{shell}").read_text()
    assert _run(**{VARIABLE: f"source_{shell}"}) == shipped, "run scripts/generate"


def test_script_for_zsh_can_be_loaded_from_fpath() -> None:
    script = (ROOT / "completions" / "llm-proxy.zsh").read_text()
    assert script.startswith("#compdef llm-proxy\n")
    assert "loadautofunc" in script


def test_commands_are_completed() -> None:
    found = _run(**{VARIABLE: "complete_bash", "COMP_WORDS": "llm-proxy conf", "COMP_CWORD": "1"})
    assert found.split() == ["config"]


def test_script_is_printed_only_when_asked_for() -> None:
    assert wanted_shell({}) is None
    assert wanted_shell({VARIABLE: "complete_zsh"}) is None
    assert wanted_shell({VARIABLE: "zsh"}) is None
    assert wanted_shell({VARIABLE: "source_tcsh"}) is None
    assert wanted_shell({VARIABLE: "source_zsh"}) == "zsh"
