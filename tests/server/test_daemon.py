from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from llm_proxy.errors import ConfigError
from llm_proxy.server.daemon import _end_daemon, run_as_daemon
from llm_proxy.server.pidfile import running_pid

# A program that becomes a daemon; its parent prints what was reported, or why it failed.
PROGRAM = """
import os, sys, time
from pathlib import Path
from llm_proxy.errors import ConfigError, LLMProxyError
from llm_proxy.server.daemon import run_as_daemon
from llm_proxy.server.pidfile import PidFile

folder, kind = Path(sys.argv[1]), sys.argv[2]

def serve(report):
    print("hello from the daemon", flush=True)
    if kind == "refuse":
        raise ConfigError("the moon is in the wrong house")
    if kind == "crash":
        raise ZeroDivisionError("oops")
    if kind == "die":
        os._exit(9)
    if kind == "hang":
        PidFile(folder / "pid").claim()
        time.sleep(60)
    report(b"pid %d sid %d in %s" % (os.getpid(), os.getsid(0), os.getcwdb()))
    if kind == "fail later":
        raise ConfigError("nobody hears this")
    return 0

try:
    reported = run_as_daemon(serve, folder=folder, log_file=folder / "server.log")
except LLMProxyError as exc:
    print(f"failed: {exc}")
else:
    print(f"reported: {reported.decode()}")
"""


def start(folder: Path, kind: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROGRAM, str(folder), kind]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def outcome(folder: Path, kind: str) -> str:
    with start(folder, kind) as program:
        output, _ = program.communicate(timeout=20)
    return output.strip()


def wait_for(path: Path, text: str) -> None:
    deadline = time.monotonic() + 30
    while not path.exists() or text not in path.read_text():
        assert time.monotonic() < deadline, path.read_text() if path.exists() else "no file"
        time.sleep(0.01)


def test_report_comes_from_a_detached_process(tmp_path: Path) -> None:
    words = outcome(tmp_path, "serve").split()
    pid, sid, folder = int(words[2]), int(words[4]), words[6]
    assert words[0] == "reported:"
    assert sid not in (pid, os.getsid(0))  # no session leader: it can never get a terminal
    assert folder == str(tmp_path)
    log = tmp_path / "server.log"
    assert "hello from the daemon" in log.read_text()
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("refuse", "failed: the moon is in the wrong house"),
        ("crash", "failed: ZeroDivisionError: oops; see the log"),
        ("die", "failed: the server ended before it was ready; see "),
    ],
)
def test_failed_start_is_told_to_the_parent(tmp_path: Path, kind: str, reason: str) -> None:
    assert outcome(tmp_path, kind).startswith(reason)


def test_failure_after_the_report_is_in_the_log_alone(tmp_path: Path) -> None:
    assert outcome(tmp_path, "fail later").startswith("reported:")
    wait_for(tmp_path / "server.log", "nobody hears this")


def test_interrupted_parent_ends_the_daemon(tmp_path: Path) -> None:
    with start(tmp_path, "hang") as program:
        wait_for(tmp_path / "pid", "\n")
        program.send_signal(signal.SIGINT)
        output, _ = program.communicate(timeout=20)
    assert "KeyboardInterrupt" in output
    deadline = time.monotonic() + 30
    while running_pid(tmp_path / "pid") is not None:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_daemon_that_has_not_told_its_pid_yet_is_ended_too() -> None:
    reading, writing = os.pipe()
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    late = threading.Timer(0.1, lambda: os.write(writing, b"%d\n" % sleeper.pid))
    late.start()
    _end_daemon(reading, bytearray())
    late.join()
    assert sleeper.wait(10) == -signal.SIGTERM
    os.close(reading)
    os.close(writing)


def test_log_file_that_cannot_be_written_starts_nothing(tmp_path: Path) -> None:
    def serve(report: object) -> int:
        raise AssertionError

    with pytest.raises(ConfigError, match="log file .* can't be written .*--log-file"):
        run_as_daemon(serve, folder=tmp_path, log_file=tmp_path)


def test_output_follows_the_log_file_s_name(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from llm_proxy.server.daemon import redirect_output;"
        "redirect_output(Path(sys.argv[1])); print('out'); print('err', file=sys.stderr)"
    )
    path = tmp_path / "server.log"
    path.write_text("before\n")
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)
    assert sorted(path.read_text().split()) == ["before", "err", "out"]
