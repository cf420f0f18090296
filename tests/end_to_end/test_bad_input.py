"""A start that can't work: one clear sentence, exit code 1, nothing half-started, nothing lost."""

from __future__ import annotations

import os
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from llm_proxy.server.pidfile import running_pid
from tests.end_to_end.conftest import Launch
from tests.end_to_end.server_process import COMMAND, ServerProcess, run_command


@pytest.fixture
def server(launch: Launch) -> Iterator[ServerProcess]:
    """Never started by the fixture; nothing of it may be left when the test is over."""
    server = launch()
    yield server
    assert list(server.runtime.iterdir()) == []  # the folder of the private sockets
    assert not server.home.state_file.exists()
    assert running_pid(server.home.pid_file) is None


def refusal(server: ServerProcess, *arguments: str, code: int = 1) -> str:
    """The one sentence of a start that fails; its pipes end only when every process has."""
    done = run_command(server.environ, "server", "start", *server.arguments, *arguments)
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: ")
    return line.removeprefix("Error: ")


def files(server: ServerProcess) -> set[str]:
    """What there is in the home."""
    home = server.home.path
    return {path.name for path in home.iterdir()} if home.exists() else set()


def test_port_in_use(server: ServerProcess) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        message = refusal(server, "--addr", address)
    assert message.startswith(f"{address} is in use")
    assert "--addr" in message
    assert server.home.database.name not in files(server)


def test_port_of_another_llm_proxy(server: ServerProcess, launch: Launch) -> None:
    other = launch()
    other.start()
    assert refusal(server, "--addr", other.address).startswith(f"{other.address} is in use")
    with other.client() as client:
        assert client.get("/ready").status_code == 200


def test_management_port_in_use(server: ServerProcess) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        message = refusal(server, "--manage-addr", address)
    assert address in message
    assert "--manage-addr" in message


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("allowed_methods", "alowed_methods", "did you mean allowed_methods?"),
        ("base_url: http:", "base_url: gopher:", "apis.openai.base_url"),
        ("100ms", "soon", "apis.impatient.timeouts.response_header"),
        ("max_conns: 1", "max_conns: many", "apis.narrow.connection.max_conns"),
        ("default_api: openai", "default_api: closedai", "'closedai'"),
        ("default_api: openai", "default_api: @", "isn't valid YAML"),
    ],
)
def test_mistake_in_the_provider_file(
    server: ServerProcess, old: str, new: str, named: str
) -> None:
    text = server.providers_file.read_text()
    line = text[: text.index(old)].count("\n") + 1
    server.providers_file.write_text(text.replace(old, new, 1))
    message = refusal(server)
    assert message.startswith(f"{server.providers_file}:{line}: ")
    assert named in message
    assert server.home.database.name not in files(server)


def test_provider_file_that_is_not_there(server: ServerProcess) -> None:
    server.providers_file.unlink()
    assert f"{server.providers_file} can't be read" in refusal(server)


def test_ca_file_that_is_missing_or_none(server: ServerProcess) -> None:
    text = server.providers_file.read_text()
    path = server.providers_file.with_name("ca.pem")
    server.providers_file.write_text(text + f"    ca_file: {path.name}\n")
    line = text.count("\n") + 1
    message = refusal(server)
    assert message.startswith(f"{server.providers_file}:{line}: apis.gone.ca_file {path} ")
    assert "No such file" in message
    path.write_text("not a certificate")
    assert "a file of PEM certificates" in refusal(server)


def test_unknown_name_in_the_env_file(server: ServerProcess) -> None:
    server.home.path.mkdir()
    server.home.env_file.write_text("# mine\nLOG_LEVEL=debug\nLOG_FROMAT=json\n")
    message = refusal(server)
    assert (
        message == f"{server.home.env_file}:3: LOG_FROMAT is no setting; did you mean LOG_FORMAT?"
    )
    assert files(server) == {"llm-proxy.env"}


def test_value_in_the_env_file_that_cannot_be_parsed(server: ServerProcess) -> None:
    server.home.path.mkdir()
    server.home.env_file.write_text("MAX_REQUEST_SIZE=lots\n")
    message = refusal(server)
    assert message.startswith(f"{server.home.env_file}:1: MAX_REQUEST_SIZE must be ")
    assert message.endswith("not 'lots'")


def test_unknown_variable_and_bad_value_in_the_environment(server: ServerProcess) -> None:
    server.environ["LLM_PROXY_WORKER"] = "2"
    message = refusal(server)
    assert "LLM_PROXY_WORKER is no setting; did you mean LLM_PROXY_WORKERS?" in message
    del server.environ["LLM_PROXY_WORKER"]
    server.environ["ENCRYPTION_KEY"] = "c2hvcnQ-canary"
    message = refusal(server)
    assert "ENCRYPTION_KEY" in message
    assert "canary" not in message
    assert files(server) == set()


def initialise(server: ServerProcess) -> bytes:
    """A database with a project in it, made by a server that has stopped."""
    server.start()
    with server.manage() as manage:
        manage.create_project({"name": "kept", "api_key": "sk-upstream-0123456789"})
    assert server.stop() == 0
    return server.home.database.read_bytes()


def test_damaged_database(server: ServerProcess) -> None:
    content = initialise(server)
    database = server.home.database
    damaged = content[:4096] + b"\xff" * (len(content) - 4096)
    database.write_bytes(damaged)
    message = refusal(server)
    assert message == f"the database {database} is damaged; restore it from a backup"
    assert database.read_bytes() == damaged
    database.write_bytes(content)
    server.start()
    with server.manage() as manage:
        assert [project.name for project in manage.list_projects()] == ["kept"]
    assert server.stop() == 0


def test_encryption_key_of_another_database(server: ServerProcess) -> None:
    content = initialise(server)
    server.home.secret_file("encryption_key").unlink()
    assert "ENCRYPTION_KEY" in refusal(server)
    assert server.home.database.read_bytes() == content
    assert "encryption_key" not in files(server)  # no new one that would pass for the right one


def test_database_of_another_program_is_left_alone(server: ServerProcess, tmp_path: Path) -> None:
    database = tmp_path / "theirs.db"
    with closing(sqlite3.connect(database)) as theirs:
        theirs.execute("CREATE TABLE projects (id INTEGER PRIMARY KEY, name TEXT)")
        theirs.execute("INSERT INTO projects (name) VALUES ('precious')")
        theirs.commit()
    before = database.read_bytes(), database.stat().st_mtime_ns
    message = refusal(server, "--db", str(database))
    assert message.startswith(f"the database {database} belongs to another program")
    assert (database.read_bytes(), database.stat().st_mtime_ns) == before
    assert [path.name for path in tmp_path.glob("theirs*")] == ["theirs.db"]


def test_file_that_is_no_database_is_left_alone(server: ServerProcess, tmp_path: Path) -> None:
    letter = tmp_path / "letter.txt"
    letter.write_text("Dear Sir or Madam, " * 20)
    assert "isn't a SQLite database" in refusal(server, "--db", str(letter))
    assert letter.read_text() == "Dear Sir or Madam, " * 20


def test_home_that_is_a_file(server: ServerProcess) -> None:
    home = server.home.path
    home.write_text("mine")
    assert str(home) in refusal(server)
    assert home.read_text() == "mine"
    home.unlink()  # else the fixture can't look for a state file under it


# Root may write everywhere until it gives up that capability (PR_CAPBSET_DROP, CAP_DAC_OVERRIDE).
OBEYING_PERMISSIONS = """
import ctypes, os, sys
if os.geteuid() == 0 and ctypes.CDLL(None).prctl(24, 1, 0, 0, 0):
    sys.exit(77)
os.execv(sys.argv[1], sys.argv[1:])
"""


def test_home_without_write_permission(server: ServerProcess) -> None:
    if os.geteuid() == 0 and not sys.platform.startswith("linux"):
        pytest.skip("root may write everywhere here")
    home = server.home.path
    home.mkdir()
    (home / "note").write_text("mine")
    home.chmod(0o555)
    command = [*COMMAND, "server", "start", *server.arguments]
    done = subprocess.run(
        [sys.executable, "-c", OBEYING_PERMISSIONS, *command],
        env=server.environ,
        capture_output=True,
        text=True,
        timeout=30,
    )
    home.chmod(0o755)
    if done.returncode == 77:
        pytest.skip("root can't give up its right to write everywhere")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"Error: the home folder {home} can't be used: no permission")
    assert "LLM_PROXY_HOME" in line
    assert files(server) == {"note"}
