from __future__ import annotations

import stat
from pathlib import Path

from llm_proxy.server.state import ServerState, WorkerState, read_state, write_state

STATE = ServerState(
    pid=41,
    address="127.0.0.1:8080",
    manage_address=None,
    version="0.1.0",
    started_at=1.5,
    runtime_folder="/run/x",
    workers=[WorkerState(pid=42, started_at=2.5)],
    flags={"workers": "2", "listen_addr": ":0"},
)


def test_written_state_is_private_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "server.json"
    write_state(path, STATE)
    assert read_state(path) == STATE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_no_file_is_no_state(tmp_path: Path) -> None:
    assert read_state(tmp_path / "server.json") is None


def test_torn_or_foreign_file_is_no_state(tmp_path: Path) -> None:
    path = tmp_path / "server.json"
    for content in ("", '{"pid": 4', '{"other": 1}', "[]"):
        path.write_text(content)
        assert read_state(path) is None
