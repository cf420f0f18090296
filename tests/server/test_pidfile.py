from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from llm_proxy.errors import LLMProxyError
from llm_proxy.server.pidfile import PidFile, running_pid

OWNER = """
import sys
from pathlib import Path
from llm_proxy.server.pidfile import PidFile
PidFile(Path(sys.argv[1])).claim()
print("claimed", flush=True)
sys.stdin.read()
"""


def start_owner(path: Path) -> subprocess.Popen[bytes]:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert owner.stdout is not None
    assert owner.stdout.readline() == b"claimed\n"
    return owner


def end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate()


def test_claimed_file_is_private_and_holds_the_pid(tmp_path: Path) -> None:
    path = tmp_path / "server.pid"
    pid_file = PidFile(path)
    pid_file.claim()
    assert path.read_text() == f"{os.getpid()}\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert running_pid(path) == os.getpid()
    pid_file.release()
    assert not path.exists()
    assert running_pid(path) is None


def test_live_owner_is_named_and_refuses_a_second(tmp_path: Path) -> None:
    path = tmp_path / "server.pid"
    owner = start_owner(path)
    try:
        assert running_pid(path) == owner.pid
        with pytest.raises(LLMProxyError, match=f"pid {owner.pid} already runs"):
            PidFile(path).claim()
    finally:
        end(owner)


def test_file_of_a_killed_owner_is_stale_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "server.pid"
    end(start_owner(path))
    assert path.exists()
    assert running_pid(path) is None
    pid_file = PidFile(path)
    pid_file.claim()
    assert path.read_text() == f"{os.getpid()}\n"
    pid_file.release()


def test_longer_stale_number_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "server.pid"
    path.write_text("123456789012345\n")
    pid_file = PidFile(path)
    pid_file.claim()
    assert path.read_text() == f"{os.getpid()}\n"
    pid_file.release()


def test_recycled_pid_of_another_program_is_stale(tmp_path: Path) -> None:
    path = tmp_path / "server.pid"
    path.write_text(f"{os.getpid()}\n")  # alive, but it holds no lock
    assert running_pid(path) is None


def test_release_keeps_a_file_that_somebody_else_put_there(tmp_path: Path) -> None:
    path = tmp_path / "server.pid"
    pid_file = PidFile(path)
    pid_file.claim()
    path.unlink()
    path.write_text("77\n")
    pid_file.release()
    assert path.read_text() == "77\n"


def test_release_without_claim_does_nothing(tmp_path: Path) -> None:
    PidFile(tmp_path / "server.pid").release()


def test_impossible_place_is_one_clear_sentence(tmp_path: Path) -> None:
    with pytest.raises(LLMProxyError, match="can't be written .*choose another with --pid-file"):
        PidFile(tmp_path / "missing" / "server.pid").claim()


def test_unreadable_place_is_one_clear_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LLMProxyError, match="can't be read"):
        running_pid(tmp_path / "file" / "server.pid")
