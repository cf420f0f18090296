"""Tokens of the older program, taken over by a real server."""

from __future__ import annotations

from pathlib import Path

from tests.end_to_end.conftest import Launch
from tests.end_to_end.server_process import run_command
from tests.store.legacy_database import LegacyDatabase

TOKENS = ("sk-AZR0xWs3cYCKMwG1Zk0Pqw", "sk-AZR0xWs3cYCKMwG1Zk0PqA")
CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}


def test_tokens_that_are_taken_over_work_at_once_and_are_counted(
    launch: Launch, tmp_path: Path
) -> None:
    old = LegacyDatabase(tmp_path / "old.db")
    old.add("projects", id="p1", name="first", api_key="sk-upstream-0123456789")
    old.add("tokens", id="t1", token=TOKENS[0], project_id="p1", request_count=7, max_requests=9)
    server = launch()
    server.start()
    with server.client(TOKENS[0]) as client:
        assert client.post("/v1/chat/completions", json=CHAT).status_code == 401
        taken = run_command(server.environ, "db", "encrypt", "--from", str(old.path), "--yes")
        assert taken.returncode == 0, taken.stderr
        # The server looks twice a second for what others wrote.
        statuses = [401]
        while statuses[-1] == 401 and len(statuses) < 2000:
            statuses.append(client.post("/v1/chat/completions", json=CHAT).status_code)
        statuses += [client.post("/v1/chat/completions", json=CHAT).status_code for _ in range(2)]
    assert statuses[-3:] == [200, 200, 429]
    with server.client(TOKENS[1]) as client:
        assert client.post("/v1/chat/completions", json=CHAT).status_code == 401
    server.stop()
    server.start()
    with server.client(TOKENS[0]) as client:
        assert client.post("/v1/chat/completions", json=CHAT).status_code == 429
