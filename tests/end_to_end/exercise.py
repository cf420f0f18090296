"""Does everything to a server that secrets take part in, and keeps all that it let be seen."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from llm_proxy.cli.main import run
from llm_proxy.secrets import new_token
from tests.end_to_end.raw_upstream import RawUpstream, connect
from tests.end_to_end.server_process import ServerProcess

CHAT = "/v1/chat/completions"
QUESTION = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}
FIRST_KEY = "sk-canary-upstream-first-0123456789"
SECOND_KEY = "sk-canary-upstream-second-0123456789"
COMMAND_KEY = "sk-canary-upstream-command-0123456789"
WRONG_TOKEN = "canary-wrong-management-token-0123456789"


@dataclass(kw_only=True)
class Exercise:
    server: ServerProcess
    upstream: RawUpstream  # of the api `echo`
    secrets: dict[str, str] = field(default_factory=dict)  # by what they are
    answers: list[bytes] = field(default_factory=list)  # heads and bodies
    outputs: list[str] = field(default_factory=list)  # of commands

    def run(self) -> None:
        server = self.server
        key = server.environ.get("ENCRYPTION_KEY")
        if key is None:
            key = server.home.secret_file("encryption_key").read_text().strip()
        self.secrets |= {
            "management token": server.management_token.reveal(),
            "encryption key": key,
            "first upstream key": FIRST_KEY,
            "second upstream key": SECOND_KEY,
            "upstream key of a command": COMMAND_KEY,
            "wrong management token": WRONG_TOKEN,
            "token that nobody made": new_token().reveal(),
        }
        self._manage_and_ask()
        self._run_commands()

    # Over HTTP.

    def _manage_and_ask(self) -> None:
        with self.server.client(self.secrets["management token"]) as client:
            keys = dict.fromkeys(("openai", "anthropic", "strict", "gone", "echo"), FIRST_KEY)
            fields: dict[str, Any] = {"name": "one", "api_keys": keys}
            project = self._keep(client.post("/manage/projects", json=fields))
            path = f"/manage/projects/{project['id']}"
            fields = {"project_id": project["id"], "duration_minutes": 5}
            made = self._keep_issued("token", client.post("/manage/tokens", json=fields))
            self._ask(made["token"])
            self._ask_for_a_garbled_answer(made["token"])
            token_path = f"/manage/tokens/{made['id']}"
            rotate = client.post(f"{token_path}/rotate", json={"grace_seconds": 60})
            rotated = self._keep_issued("rotated token", rotate)
            self._keep(client.patch(path, json={"api_key": SECOND_KEY}))
            self._ask(rotated["token"])
            self._keep(client.patch(token_path, json={"name": "renamed", "max_requests": 1000}))
            self._read_and_err(client, path, token_path)
            self._keep(client.delete(token_path))
            self._keep(client.post(f"{path}/tokens/revoke"))
            self._ask(rotated["token"])

    def _read_and_err(self, client: httpx.Client, path: str, token_path: str) -> None:
        probes = ("/health", "/ready", "/metrics")
        for read in ("/manage/projects", path, "/manage/tokens", token_path, *probes):
            self._keep(client.get(read))
        for fields in (
            {"api_key": f"{SECOND_KEY} and a blank"},
            {"api_key": [SECOND_KEY]},
            {"api_keys": {"no-such-api": SECOND_KEY}},
        ):
            self._keep(client.patch(path, json=fields))
        self._keep(client.post("/manage/projects", json={"name": "one", "api_key": SECOND_KEY}))
        torn = b'{"name": "torn", "api_key": "%b' % SECOND_KEY.encode()
        self._keep(client.post("/manage/projects", content=torn))
        for scheme in ("Bearer", "Basic"):
            wrong = {"Authorization": f"{scheme} {WRONG_TOKEN}"}
            self._keep(client.get("/manage/projects", headers=wrong))

    def _ask(self, token: str) -> None:
        """As a program does: good requests, refused ones, and failures of the upstream."""
        faults: list[dict[str, str]] = [
            {},
            {"X-Mock-Status": "401"},
            {"X-Mock-Status": "500"},
            {"X-Mock-Cut": "head"},
        ]
        everywhere = dict.fromkeys(("x-api-key", "api-key", "x-goog-api-key"), token)
        with self.server.client(token) as client:
            for headers in (*faults, everywhere):
                self._keep(client.post(CHAT, json=QUESTION, headers=headers))
            for path in ("/v2/models", "/gone/v1/models", "/narrow/v1/models", "/v1/%2e%2e/x"):
                self._keep(client.get(path))
            self._keep(client.post(f"/strict{CHAT}", json={**QUESTION, "model": "o3"}))
            self._keep(client.put("/v1/models"))
            unknown = {"Authorization": f"Bearer {self.secrets['token that nobody made']}"}
            self._keep(client.get("/v1/models", headers=unknown))
            with contextlib.suppress(httpx.RemoteProtocolError):
                stream = {**QUESTION, "stream": True}
                client.post(CHAT, json=stream, headers={"X-Mock-Cut": "3"})

    def _ask_for_a_garbled_answer(self, token: str) -> None:
        """What we say of an answer that is no HTTP must not quote the key in it."""
        with connect(self.server.address) as client:
            client.send(b"GET /echo/v1/x HTTP/1.1\r\nHost: p\r\nConnection: close\r\n")
            client.send(b"Authorization: Bearer %b\r\n\r\n" % token.encode())
            with self.upstream.accept() as upstream:
                key = upstream.read_message().value(b"authorization") or b""
                assert FIRST_KEY.encode() in key
                upstream.send(b"HTTP/1.1 200 OK\r\n%b is no header\r\n\r\n" % key)
                self.answers.append(client.read_rest())

    def _keep(self, answer: httpx.Response) -> dict[str, Any]:
        self.answers.append(repr(answer.headers.raw).encode() + answer.content)
        is_object = answer.content.startswith(b"{")
        return answer.json() if is_object else {}

    def _keep_issued(self, what: str, answer: httpx.Response) -> dict[str, Any]:
        """The one answer that has a new token in it."""
        made: dict[str, Any] = answer.json()
        self.secrets[what] = made["token"]
        return made

    # By commands.

    def _run_commands(self) -> None:
        with self._environment():
            keys = ("--api-key", "-")
            created = self._command("manage", "project", "create", "--name", "two", *keys)
            identity = json.loads(created)["id"]
            of_project = ("--project-id", identity)
            made = json.loads(self._issue("manage", "token", "generate", *of_project))
            self.secrets["token of a command"] = made["token"]
            rotated = json.loads(self._issue("manage", "token", "rotate", made["id"]))
            self.secrets["rotated token of a command"] = rotated["token"]
            for arguments in (
                ("manage", "project", "list"),
                ("manage", "project", "get", identity),
                ("manage", "project", "update", identity, *keys),
                ("manage", "token", "list"),
                ("manage", "token", "get", made["id"]),
                ("manage", "token", "get", rotated["token"]),
                ("manage", "token", "revoke", made["id"], "--yes"),
                ("manage", "project", "deactivate", identity),
                ("manage", "project", "activate", identity),
                ("server", "status"),
                ("server", "health"),
                ("config", "show"),
                ("db", "status"),
            ):
                self._command(*arguments)
                self._command(*arguments, as_json=False)
            wrong = ("manage", "project", "list", "--management-token", WRONG_TOKEN)
            self._command(*wrong, as_json=False, code=3)

    def _command(self, *arguments: str, as_json: bool = True, code: int = 0) -> str:
        output = self._issue(*arguments, as_json=as_json, code=code)
        self.outputs.append(output)
        return output.partition("\0")[0]

    def _issue(self, *arguments: str, as_json: bool = True, code: int = 0) -> str:
        """What a command printed to stdout; errors after a NUL, unless there are none."""
        out, err = io.StringIO(), io.StringIO()
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            pytest.MonkeyPatch.context() as patch,
        ):
            patch.setattr(sys, "stdin", io.StringIO(COMMAND_KEY + "\n"))
            got = run([*arguments, *(["--json"] if as_json else [])])
        assert got == code, (arguments, err.getvalue())
        return out.getvalue() + (f"\0{err.getvalue()}" if err.getvalue() else "")

    @contextlib.contextmanager
    def _environment(self) -> Iterator[None]:
        """That of the server, for commands that run in this process."""
        wanted = {**self.server.environ, "LLM_PROXY_MANAGE_API_BASE_URL": self.server.url}
        with pytest.MonkeyPatch.context() as patch:
            for name in set(os.environ) - set(wanted):
                patch.delenv(name)
            for name, value in wanted.items():
                patch.setenv(name, value)
            yield


def files_under(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]
