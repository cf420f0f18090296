from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

Run = Callable[..., Any]


def test_help_lists_the_groups(llm_proxy: Run) -> None:
    shown = llm_proxy("manage", "--help")
    assert shown.exit_code == 0
    assert "project" in shown.out
    assert "token" in shown.out


@pytest.mark.parametrize(
    ("group", "commands"),
    [
        ("project", ["list", "get", "create", "update", "activate", "deactivate", "delete"]),
        ("token", ["generate", "list", "get", "update", "revoke", "rotate"]),
    ],
)
def test_every_command_explains_the_options_it_shares(
    llm_proxy: Run, group: str, commands: list[str]
) -> None:
    for command in commands:
        shown = llm_proxy("manage", group, command, "--help")
        assert shown.exit_code == 0
        for option in ("--manage-api-base-url", "--management-token", "--json"):
            assert option in shown.out


def test_a_whole_life_through_the_command_line(manage: Run) -> None:
    created = manage("project", "create", "--name", "demo", "--api-key", "-", stdin="sk-key\n")
    assert created.exit_code == 0
    generated = manage("token", "generate")
    assert generated.exit_code == 0
    token = generated.out.strip()
    assert token.startswith("sk-")
    assert manage("token", "get", token).exit_code == 0
    assert manage("token", "revoke", token).exit_code == 0
    assert "revoked" in manage("token", "list").out


def test_a_wrong_management_token_is_exit_code_3(manage: Run) -> None:
    shown = manage("project", "list", "--management-token", "wrong-token")
    assert shown.exit_code == 3
    assert "the server refused the management token" in shown.err
    assert "wrong-token" not in shown.err
    assert shown.out == ""


def test_nobody_listening_is_exit_code_5(manage: Run, deaf_address: str) -> None:
    url = f"http://{deaf_address}"
    shown = manage("token", "list", "--manage-api-base-url", url)
    assert shown.exit_code == 5
    assert f"no server can be reached at {url}" in shown.err


def test_help_loads_nothing_heavy() -> None:
    script = "import sys; import llm_proxy.cli.manage, llm_proxy.cli.db; print(*sys.modules)"
    printed = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout
    heavy = {"cryptography", "httpx", "hypercorn", "peewee", "starlette", "llm_proxy.store"}
    assert heavy.isdisjoint(printed.split())
