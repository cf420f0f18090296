from __future__ import annotations

import json
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_proxy.home import Home
from llm_proxy.server.pidfile import PidFile
from llm_proxy.server.state import ServerState, write_state
from llm_proxy.store.migrations import MIGRATIONS

Run = Callable[..., Any]
NAMES = [migration.name for migration in MIGRATIONS]


def test_a_database_is_made_where_the_settings_say(llm_proxy: Run) -> None:
    made = llm_proxy("db", "migrate")
    assert made.exit_code == 0, made.err
    assert made.out.splitlines() == [f"applied {name}" for name in NAMES]
    database = Home.default(os.environ).database
    assert str(database) in made.err
    assert stat.S_IMODE(database.stat().st_mode) == 0o600
    assert stat.S_IMODE(database.parent.stat().st_mode) == 0o700


def test_a_database_is_made_where_the_flag_says(llm_proxy: Run, tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    made = llm_proxy("db", "migrate", "--db", str(path), "--json")
    assert json.loads(made.out) == {"database": str(path), "applied": NAMES}
    made = llm_proxy("db", "migrate", "--db", f"sqlite:///{path}", "--json")
    assert json.loads(made.out) == {"database": str(path), "applied": []}
    assert not Home.default(os.environ).path.exists()


def test_the_status_tells_what_is_missing(
    llm_proxy: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_PATH", str(tmp_path / "x.db"))
    shown = llm_proxy("db", "status")
    assert shown.exit_code == 1
    assert "there is no database at" in shown.err
    llm_proxy("db", "migrate")
    shown = llm_proxy("db", "status")
    assert shown.exit_code == 0
    assert [line.split()[0] for line in shown.out.splitlines()] == ["MIGRATION", *NAMES]
    llm_proxy("db", "rollback", "--yes")
    shown = llm_proxy("db", "status")
    assert shown.exit_code == 1
    assert shown.out.splitlines()[-1].split() == [NAMES[-1], "missing"]
    assert "llm-proxy db migrate" in shown.err
    document = json.loads(llm_proxy("db", "status", "--json").out)
    assert document["current"] is False
    assert [m["name"] for m in document["migrations"] if m["applied_at"]] == NAMES[:-1]


def test_a_rollback_wants_to_be_confirmed(llm_proxy: Run, tmp_path: Path) -> None:
    path = str(tmp_path / "x.db")
    llm_proxy("db", "migrate", "--db", path)
    shown = llm_proxy("db", "rollback", "--db", path)
    assert shown.exit_code == 2
    assert "--yes" in shown.err
    assert llm_proxy("db", "status", "--db", path).exit_code == 0
    shown = llm_proxy("db", "rollback", "--db", path, "--yes", "--steps", "2")
    assert shown.out.splitlines() == [f"undid {NAMES[-1]}", f"undid {NAMES[-2]}"]
    shown = llm_proxy("db", "rollback", "--db", path, "--yes", "--json")
    assert json.loads(shown.out)["undone"] == [NAMES[-3]]


@pytest.mark.parametrize("command", ["migrate", "status"])
def test_another_programs_database_is_left_alone(
    llm_proxy: Run, tmp_path: Path, command: str
) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database" * 100)
    shown = llm_proxy("db", command, "--db", str(path))
    assert shown.exit_code == 1
    assert "isn't a SQLite database" in shown.err
    assert path.read_text() == "not a database" * 100


def test_steps_must_be_at_least_one(llm_proxy: Run) -> None:
    assert llm_proxy("db", "rollback", "--steps", "0", "--yes").exit_code == 2


def test_nothing_to_undo_is_said(llm_proxy: Run, tmp_path: Path) -> None:
    path = str(tmp_path / "x.db")
    llm_proxy("db", "migrate", "--db", path)
    llm_proxy("db", "rollback", "--db", path, "--yes", "--steps", "99")
    shown = llm_proxy("db", "rollback", "--db", path, "--yes")
    assert (shown.exit_code, shown.out) == (0, "")
    assert "There is nothing to undo" in shown.err


def test_a_rollback_is_refused_while_a_server_uses_the_database(
    llm_proxy: Run, tmp_path: Path
) -> None:
    llm_proxy("db", "migrate")
    other = str(tmp_path / "other.db")
    llm_proxy("db", "migrate", "--db", other)
    home = Home.default(os.environ)
    serving = PidFile(home.pid_file)
    serving.claim()
    state = ServerState(
        pid=os.getpid(),
        address="127.0.0.1:1",
        manage_address=None,
        version="1",
        started_at=0,
        runtime_folder=None,
        workers=[],
        flags={},
    )
    write_state(home.state_file, state)
    refused = llm_proxy("db", "rollback", "--yes")
    assert refused.exit_code == 1
    assert "stop it first: llm-proxy server stop" in refused.err
    assert llm_proxy("db", "status").exit_code == 0
    assert llm_proxy("db", "rollback", "--yes", "--db", other).exit_code == 0
    serving.release()
    assert llm_proxy("db", "rollback", "--yes").exit_code == 0


@pytest.mark.parametrize("engine", ["postgresql", "mysql"])
@pytest.mark.parametrize("command", [("status",), ("migrate",), ("rollback", "--yes")])
def test_a_database_server_that_is_not_there_is_unreachable(
    llm_proxy: Run, engine: str, command: tuple[str, ...]
) -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))  # and doesn't listen
        url = f"{engine}://u:sesame@127.0.0.1:{deaf.getsockname()[1]}/d"
        found = llm_proxy("db", *command, "--db", url)
    assert found.exit_code == 5
    assert "can't be reached" in found.err
    assert "sesame" not in found.err
