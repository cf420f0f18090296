"""The encryption key is rotated while a real server is at work."""

from __future__ import annotations

import threading

from llm_proxy.manage.client import ManagementClient
from llm_proxy.secrets import key_id, new_encryption_key
from tests.end_to_end.conftest import Launch
from tests.end_to_end.server_process import ServerProcess, run_command

CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}


def ask(server: ServerProcess, token: str) -> int:
    with server.client(token) as client:
        return client.post("/v1/chat/completions", json=CHAT).status_code


def fresh_token(manage: ManagementClient) -> str:
    """No worker knows it yet, so its project's key is read from the database."""
    (project,) = manage.list_projects()
    return manage.create_token({"project_id": project.id, "duration_minutes": 60}).token


class Traffic:
    """One request after another, on a connection each."""

    def __init__(self, server: ServerProcess, token: str) -> None:
        self.statuses: list[int] = []
        self._server, self._token = server, token
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.is_set():
            self.statuses.append(ask(self._server, self._token))

    def __enter__(self) -> Traffic:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(10)


def test_a_rotation_is_unnoticed_by_clients(launch: Launch) -> None:
    server = launch(arguments=["--workers", "2"])
    server.start()
    before = server.home.read_secret("encryption_key")
    with Traffic(server, server.add_token()) as traffic:
        rotated = run_command(server.environ, "db", "rotate-key", "--generate")
    assert set(traffic.statuses) == {200}
    assert rotated.returncode == 0, rotated.stderr
    assert "opens nothing any more" in rotated.stderr
    after = server.home.read_secret("encryption_key")
    assert before is not None
    assert after is not None
    assert server.state.encryption_key_id == key_id(after) != key_id(before)
    with server.manage() as manage:
        for _ in range(4):
            assert ask(server, fresh_token(manage)) == 200
        (project,) = manage.list_projects()
        manage.update_project(project.id, {"api_keys": {"openai": "sk-altered-0123456789"}})
        assert ask(server, fresh_token(manage)) == 200
    server.stop()
    server.start()
    with server.manage() as manage:
        assert ask(server, fresh_token(manage)) == 200


def test_a_key_of_the_servers_environment_is_rotated_without_a_pause(launch: Launch) -> None:
    old, new = new_encryption_key().reveal(), new_encryption_key().reveal()
    server = launch(environ={"ENCRYPTION_KEY": old})
    server.start()
    server.add_token()
    server.environ["NEW_ENCRYPTION_KEY"] = new
    rotated = run_command(server.environ, "db", "rotate-key", "--yes")
    assert rotated.returncode == 0, rotated.stderr
    assert "--finish" in rotated.stderr
    with server.manage() as manage:
        assert ask(server, fresh_token(manage)) == 200
    server.environ["ENCRYPTION_KEY"] = new
    refused = run_command(server.environ, "db", "rotate-key", "--finish")
    assert refused.returncode == 1
    assert "still has the old key" in refused.stderr
    server.stop()
    server.start()
    assert "the old encryption key still opens" in server.stderr
    assert run_command(server.environ, "db", "rotate-key", "--finish").returncode == 0
    with server.manage() as manage:
        assert ask(server, fresh_token(manage)) == 200
    server.stop()
    server.environ["ENCRYPTION_KEY"] = old
    started = run_command(server.environ, "server", "start", "--addr", "127.0.0.1:0")
    assert started.returncode == 1
    assert "ENCRYPTION_KEY isn't the one" in started.stderr


def test_a_server_with_its_key_from_elsewhere_keeps_the_rotation_open(launch: Launch) -> None:
    """The home has the same key, but a reload doesn't give the server that one."""
    server = launch()
    server.start()
    server.add_token()
    server.stop()
    key = server.home.read_secret("encryption_key")
    assert key is not None
    server.environ["ENCRYPTION_KEY"] = key.reveal()
    server.start()
    del server.environ["ENCRYPTION_KEY"]
    rotated = run_command(server.environ, "db", "rotate-key", "--generate")
    assert rotated.returncode == 0, rotated.stderr
    assert "has its key from elsewhere" in rotated.stderr
    with server.manage() as manage:
        assert ask(server, fresh_token(manage)) == 200
    server.stop()
    server.start()
    assert run_command(server.environ, "db", "rotate-key", "--finish").returncode == 0


def test_a_reload_takes_no_key_that_the_database_was_not_rotated_to(launch: Launch) -> None:
    server = launch()
    server.start()
    server.add_token()
    server.home.write_secret("encryption_key", new_encryption_key())
    reloaded = run_command(server.environ, "server", "reload")
    assert reloaded.returncode == 1
    assert "ENCRYPTION_KEY isn't the one" in reloaded.stderr
    with server.manage() as manage:
        assert ask(server, fresh_token(manage)) == 200
