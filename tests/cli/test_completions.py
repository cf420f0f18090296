from __future__ import annotations

from pathlib import Path

import pytest

from llm_proxy.cli.completions import SHELLS, VARIABLE, wanted_shell
from llm_proxy.cli.main import run

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("shell", SHELLS)
def test_shipped_script_is_what_the_command_prints(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, shell: str
) -> None:
    monkeypatch.setenv(VARIABLE, f"source_{shell}")
    assert run([]) == 0
    shipped = (ROOT / "completions" / f"llm-proxy.{shell}").read_text()
    assert capsys.readouterr().out == shipped, "run scripts/generate"


def test_script_for_zsh_can_be_loaded_from_fpath() -> None:
    script = (ROOT / "completions" / "llm-proxy.zsh").read_text()
    assert script.startswith("#compdef llm-proxy\n")
    assert "loadautofunc" in script


@pytest.mark.parametrize(
    ("line", "found"), [("conf", ["config"]), ("config ", ["validate", "show"])]
)
def test_commands_are_completed(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    line: str,
    found: list[str],
) -> None:
    monkeypatch.setenv(VARIABLE, "complete_bash")
    monkeypatch.setenv("COMP_WORDS", f"llm-proxy {line}")
    monkeypatch.setenv("COMP_CWORD", str(1 + line.count(" ")))
    with pytest.raises(SystemExit):
        run([])
    assert capsys.readouterr().out.split() == found


def test_script_is_printed_only_when_asked_for() -> None:
    assert wanted_shell({}) is None
    assert wanted_shell({VARIABLE: "complete_zsh"}) is None
    assert wanted_shell({VARIABLE: "zsh"}) is None
    assert wanted_shell({VARIABLE: "source_tcsh"}) is None
    assert wanted_shell({VARIABLE: "source_zsh"}) == "zsh"
