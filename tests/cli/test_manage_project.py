from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

Run = Callable[..., Any]
KEY = "sk-upstream-0123456789abcd"


@pytest.fixture
def create(manage: Run) -> Callable[..., dict[str, Any]]:
    def create(*arguments: str, name: str = "demo") -> dict[str, Any]:
        created = manage(
            "project", "create", "--name", name, "--api-key", KEY, *arguments, "--json"
        )
        assert created.exit_code == 0, created.err
        project: dict[str, Any] = json.loads(created.out)
        return project

    return create


def test_a_created_project_is_shown_with_its_key_masked(manage: Run) -> None:
    shown = manage("project", "create", "--name", "demo", "--api-key", KEY)
    assert shown.exit_code == 0
    lines = dict(line.split(":", 1) for line in shown.out.splitlines())
    assert lines["Name"].strip() == "demo"
    assert lines["Keys"].strip() == "openai sk-upst…abcd"
    assert lines["Active"].strip() == "yes"
    assert f"manage token generate --project-id {lines['Id'].strip()}" in shown.err
    assert KEY not in shown.out + shown.err


def test_all_that_a_project_can_hold_is_given(
    create: Callable[..., dict[str, Any]],
) -> None:
    project = create(
        "--api-key-for", "anthropic=sk-ant-0123456789abcdef",
        "--description", "for the docs",
        "--metadata", '{"team": "search"}',
    )  # fmt: skip
    assert project["api_keys"] == {"anthropic": "sk-ant-…cdef", "openai": "sk-upst…abcd"}
    assert project["description"] == "for the docs"
    assert project["metadata"] == {"team": "search"}


def test_the_older_name_of_the_key_option_works(manage: Run) -> None:
    assert manage("project", "create", "--name", "n", "--openai-key", KEY).exit_code == 0


def test_a_key_can_be_for_another_api(manage: Run) -> None:
    arguments = ("--name", "n", "--api-key", KEY, "--api", "anthropic", "--json")
    shown = manage("project", "create", *arguments)
    assert list(json.loads(shown.out)["api_keys"]) == ["anthropic"]
    assert manage("project", "create", "--name", "m", "--api-key-for", f"openai={KEY}").out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--name"),
        (["--name", "n"], "--api-key is required"),
        (["--name", "n", "--api-key", "-"], "nothing came from stdin"),
        (["--name", "n", "--api-key", "-", "--management-token", "-"], "only one of"),
        (["--name", "n", "--api-key-for", "anthropic"], "API=KEY"),
        (["--name", "n", "--api-key-for", "anthropic="], "API=KEY"),
        (["--name", "n", "--api-key", KEY, "--metadata", "{"], "isn't JSON"),
        (["--name", "n", "--api-key", KEY, "--metadata", "[]"], "must be a JSON object"),
        (["--name", "n", "--api-key", KEY, "--metadata", '{"a": NaN}'], "isn't JSON"),
        (["--name", "n", "--api-key", KEY, "--metadata", '{"a": 1e400}'], "isn't JSON"),
        (["--name", "n", "--api-key", KEY, "--metadata", r'{"a": "\ud800"}'], "isn't JSON"),
        (["--name", "n", "--api-key", KEY, "--metadata", '{"a":' * 5000], "isn't JSON"),
        (["--name", "\udcff", "--api-key", KEY], "of the command isn't text in UTF-8"),
        (["--name", "n", "--api-key", f"{KEY}\udcff"], "of the command isn't text"),
    ],
)
def test_wrong_usage_is_exit_code_2(manage: Run, arguments: list[str], message: str) -> None:
    shown = manage("project", "create", *arguments)
    assert shown.exit_code == 2
    assert message in " ".join(shown.err.split())
    assert KEY not in shown.err
    assert shown.out == ""


def test_what_the_server_refuses_is_exit_code_1(
    manage: Run, create: Callable[..., dict[str, Any]]
) -> None:
    create(name="taken")
    shown = manage("project", "create", "--name", "taken", "--api-key", KEY)
    assert shown.exit_code == 1
    assert "a project named 'taken' exists already" in shown.err


def test_projects_are_listed(manage: Run, create: Callable[..., dict[str, Any]]) -> None:
    empty = manage("project", "list")
    assert empty.out == "ID  NAME  KEY  ACTIVE\n"
    assert "No projects yet" in empty.err
    project = create(name="demo")
    manage("project", "create", "--name", "other", "--api-key-for", f"anthropic={KEY}")
    lines = manage("project", "list").out.splitlines()
    assert lines[1].split() == [project["id"], "demo", "sk-upst…abcd", "yes"]
    listed = json.loads(manage("project", "list", "--json").out)
    assert [entry["name"] for entry in listed] == ["demo", "other"]


def test_one_project_is_shown(manage: Run, create: Callable[..., dict[str, Any]]) -> None:
    project = create()
    assert json.loads(manage("project", "get", project["id"], "--json").out) == project
    shown = manage("project", "get", "nobody")
    assert shown.exit_code == 4
    assert "there is no such project" in shown.err


def test_an_update_changes_what_it_names(
    manage: Run, create: Callable[..., dict[str, Any]]
) -> None:
    project = create("--api-key-for", "anthropic=sk-ant-0123456789abcdef")
    shown = manage(
        "project", "update", project["id"], "--name", "new", "--api-key", "-",
        "--remove-key", "anthropic", "--description", "", "--json",
        stdin="sk-rotated-0123456789wxyz\n",
    )  # fmt: skip
    updated = json.loads(shown.out)
    assert updated["name"] == "new"
    assert updated["api_keys"] == {"openai": "sk-rota…wxyz"}
    shown = manage("project", "update", project["id"])
    assert shown.exit_code == 2
    assert "nothing to update" in shown.err


def test_a_project_has_limits_of_its_own(
    manage: Run, create: Callable[..., dict[str, Any]]
) -> None:
    project = create("--rate-limit", "600/min", "--rate-burst", "5", "--max-concurrent", "50")
    limits = {"rate_limit": "600/min", "rate_burst": 5, "max_concurrent": 50}
    assert limits.items() <= project.items()
    shown = manage("project", "update", project["id"], "--rate-limit", "default")
    assert "Rate limit:   default, burst 5" in shown.out
    assert "Concurrent:   50" in shown.out


def test_a_project_is_deactivated_and_activated(
    manage: Run, create: Callable[..., dict[str, Any]]
) -> None:
    project = create()
    manage("token", "generate")
    shown = manage(
        "project", "deactivate", project["id"], "--revoke-tokens", "--cancel-running", "--json"
    )
    assert json.loads(shown.out)["is_active"] is False
    assert json.loads(manage("token", "list", "--json").out)[0]["is_active"] is False
    shown = manage("token", "generate", "--project-id", project["id"])
    assert shown.exit_code == 3
    assert "inactive project" in shown.err
    shown = manage("project", "activate", project["id"])
    assert "Active:       yes" in shown.out


def test_a_project_is_deleted(manage: Run, create: Callable[..., dict[str, Any]]) -> None:
    project = create()
    manage("token", "generate")
    shown = manage("project", "delete", project["id"])
    assert shown.exit_code == 1
    assert "still has 1 active token" in shown.err
    shown = manage("project", "delete", project["id"], "--force", "--cancel-running", "--json")
    assert shown.exit_code == 0
    assert json.loads(shown.out) == {"id": project["id"], "deleted": True}
    assert manage("project", "delete", project["id"]).exit_code == 4


def on_a_terminal(*arguments: str, prompt: bytes, typed: bytes) -> tuple[int, str]:
    """Runs a command for a person who answers one question; exit code and what the screen shows."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "llm_proxy", "manage", *arguments]
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    )
    os.close(theirs)
    hangs = threading.Timer(30, process.kill)
    hangs.start()
    screen = b""
    with contextlib.suppress(OSError):  # how Linux tells that the other end was closed
        while chunk := os.read(ours, 65536):
            had_asked = prompt in screen
            screen += chunk
            if prompt in screen and not had_asked:
                os.write(ours, typed)
    hangs.cancel()
    os.close(ours)
    return process.wait(30), screen.decode()


def test_a_person_is_asked_for_the_key_without_echo(manage: Run) -> None:
    code, screen = on_a_terminal(
        "project", "create", "--name", "asked",
        prompt=b"API key: ",  # the blank comes when the terminal no longer echoes
        typed=b"sk-typed-0123456789abcd\n",
    )  # fmt: skip
    assert code == 0, screen
    assert "Upstream API key:" in screen
    assert "sk-typed-0123" not in screen
    assert json.loads(manage("project", "list", "--json").out)[0]["api_key"] == "sk-type…abcd"


@pytest.mark.parametrize(("typed", "code", "left"), [(b"n\n", 1, 1), (b"y\n", 0, 0)])
def test_a_person_confirms_a_deletion(
    manage: Run,
    create: Callable[..., dict[str, Any]],
    typed: bytes,
    code: int,
    left: int,
) -> None:
    project = create()
    answer, screen = on_a_terminal(
        "project", "delete", project["id"], prompt=b"tokens?", typed=typed
    )
    assert "Delete project" in screen
    assert ("Nothing was changed." in screen) == (typed == b"n\n")
    assert answer == code
    assert len(json.loads(manage("project", "list", "--json").out)) == left
