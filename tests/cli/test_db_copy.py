from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_proxy.database_url import DatabaseUrl
from llm_proxy.store.schema import schema_status

Run = Callable[..., Any]
InTerminal = Callable[[list[str], list[tuple[str, str]]], tuple[int, str]]


def test_all_is_copied_and_counted(
    llm_proxy: Run, tmp_path: Path, postgres_url: DatabaseUrl
) -> None:
    source = str(tmp_path / "a.db")
    assert llm_proxy("db", "migrate", "--db", source).exit_code == 0
    shown = llm_proxy("db", "copy", source, postgres_url.reveal(), "--json")
    assert shown.exit_code == 0, shown.err
    found = json.loads(shown.out)
    assert (found["source"], found["target"]) == (source, str(postgres_url))
    assert found["copied"]["tokens"] == 0
    assert all(state.applied_at for state in schema_status(postgres_url))
    shown = llm_proxy("db", "copy", postgres_url.reveal(), str(tmp_path / "b.db"))
    assert shown.exit_code == 0, shown.err
    assert "tokens" in shown.out
    assert "was copied to" in shown.err


def test_places_can_come_from_settings_and_stdin(
    llm_proxy: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path / 'a.db'}")
    assert llm_proxy("db", "migrate").exit_code == 0
    shown = llm_proxy("db", "copy", "-", "-", stdin=f"{tmp_path / 'b.db'}\n")
    assert shown.exit_code == 0, shown.err
    assert (tmp_path / "b.db").exists()


def test_a_person_is_asked_without_echo_and_sees_progress(
    in_terminal: InTerminal, llm_proxy: Run, tmp_path: Path
) -> None:
    source, target = str(tmp_path / "a.db"), str(tmp_path / "b.db")
    assert llm_proxy("db", "migrate", "--db", source).exit_code == 0
    code, shown = in_terminal(["db", "copy", source, "-"], [("Target: ?hidden", f"{target}\n")])
    assert code == 0, shown
    assert "was copied to" in shown


@pytest.mark.parametrize(
    ("target", "said"),
    [("-", "nothing came from stdin"), ("redis://db", "TARGET must be a URL like postgresql://")],
)
def test_a_target_that_is_none_is_named(
    llm_proxy: Run, tmp_path: Path, target: str, said: str
) -> None:
    assert llm_proxy("db", "migrate", "--db", str(tmp_path / "a.db")).exit_code == 0
    shown = llm_proxy("db", "copy", str(tmp_path / "a.db"), target, stdin="")
    assert shown.exit_code == 2
    assert said in shown.err


def test_a_missing_source_is_told(llm_proxy: Run, tmp_path: Path) -> None:
    shown = llm_proxy("db", "copy", str(tmp_path / "a.db"), str(tmp_path / "b.db"))
    assert shown.exit_code == 1
    assert "there is no database at" in shown.err
