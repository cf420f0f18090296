from __future__ import annotations

import os
from pathlib import Path

import pytest

from llm_proxy.cli.serving import refuse_while_serving
from llm_proxy.database_url import DatabaseUrl, parse_database
from llm_proxy.errors import Conflict
from llm_proxy.home import Home
from llm_proxy.server.pidfile import PidFile
from llm_proxy.server.state import ServerState, write_state


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("LLM_PROXY_HOME", str(tmp_path))
    return Home(tmp_path)


def serve(home: Home, **flags: str) -> None:
    PidFile(home.pid_file).claim()
    write_state(
        home.state_file,
        ServerState(
            pid=os.getpid(),
            address="127.0.0.1:1",
            manage_address=None,
            version="1",
            started_at=0.0,
            runtime_folder=None,
            workers=[],
            flags=flags,
        ),
    )


def test_nobody_serves_from_a_fresh_home(home: Home) -> None:
    refuse_while_serving(home, home.database)


def test_the_database_of_a_running_server_is_refused(home: Home) -> None:
    serve(home)
    with pytest.raises(Conflict, match=f"pid {os.getpid()} uses .*stop it first"):
        refuse_while_serving(home, home.database)
    refuse_while_serving(home, home.path / "other.db")


def test_a_server_is_known_by_the_url_it_was_started_with(home: Home) -> None:
    text = "postgresql://u:sesame@h/d"
    url = parse_database(text)
    assert isinstance(url, DatabaseUrl)
    serve(home, database_path=text)
    with pytest.raises(Conflict) as caught:
        refuse_while_serving(home, url)
    assert "sesame" not in str(caught.value)
    refuse_while_serving(home, home.database)
