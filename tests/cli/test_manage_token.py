from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from llm_proxy.secrets import is_well_formed_token

Run = Callable[..., Any]


@pytest.fixture
def project_id(manage: Run) -> str:
    created = manage("project", "create", "--name", "demo", "--api-key", "sk-key", "--json")
    return str(json.loads(created.out)["id"])


@pytest.fixture
def generate(manage: Run, project_id: str) -> Callable[..., dict[str, Any]]:
    def generate(*arguments: str) -> dict[str, Any]:
        made = manage("token", "generate", *arguments, "--json")
        assert made.exit_code == 0, made.err
        token: dict[str, Any] = json.loads(made.out)
        return token

    return generate


def lifetime(token: dict[str, Any]) -> timedelta:
    return datetime.fromisoformat(token["expires_at"]) - datetime.now(UTC)


def test_a_token_alone_is_on_stdout(manage: Run, project_id: str) -> None:
    made = manage("token", "generate")
    assert made.exit_code == 0
    assert is_well_formed_token(made.out.strip().encode())
    assert made.out.count("\n") == 1
    assert "it is not shown again" in made.err
    assert project_id in made.err
    assert made.out.strip() not in made.err


@pytest.mark.parametrize(
    ("duration", "expected"),
    [
        (None, timedelta(hours=24)),
        ("30m", timedelta(minutes=30)),
        ("7d", timedelta(days=7)),
        ("1h30m", timedelta(minutes=90)),
        ("90", timedelta(minutes=90)),
    ],
)
def test_it_lasts_as_long_as_asked(
    generate: Callable[..., dict[str, Any]], duration: str | None, expected: timedelta
) -> None:
    token = generate(*([] if duration is None else ["--duration", duration]))
    assert expected - timedelta(minutes=1) < lifetime(token) <= expected


def test_it_has_the_cap_and_name_that_were_asked_for(
    manage: Run, generate: Callable[..., dict[str, Any]]
) -> None:
    token = generate("--max-requests", "5", "--name", "ci")
    assert token["max_requests"] == 5
    assert json.loads(manage("token", "get", token["id"], "--json").out)["name"] == "ci"
    assert generate("--max-requests", "0")["max_requests"] is None


def test_it_is_narrowed_and_limited_as_asked(
    manage: Run, generate: Callable[..., dict[str, Any]]
) -> None:
    made = generate(
        *("--not-before", "2100-01-01T00:00:00Z", "--expires-at", "2100-02-01T00:00:00Z"),
        *("--idle-timeout", "30d", "--rate-limit", "60/min", "--rate-burst", "9"),
        *("--max-concurrent", "2", "--allow-api", "openai", "--allow-endpoint", "/v1/models"),
        *("--allow-endpoint", "/v1/files/*", "--allow-method", "GET", "--allow-model", "gpt-4*"),
        *("--allow-network", "10.0.0.0/8"),
    )
    token = json.loads(manage("token", "get", made["id"], "--json").out)
    assert {
        "not_before": "2100-01-01T00:00:00Z",
        "expires_at": "2100-02-01T00:00:00Z",
        "idle_timeout_seconds": 2_592_000,
        "scope": {
            "apis": ["openai"],
            "endpoints": ["/v1/models", "/v1/files/*"],
            "methods": ["GET"],
            "models": ["gpt-4*"],
            "networks": ["10.0.0.0/8"],
        },
        "rate_limit": "60/min",
        "rate_burst": 9,
        "max_concurrent": 2,
    }.items() <= token.items()
    assert "pending" in manage("token", "list").out


@pytest.mark.parametrize("duration", ["soon", "0", "30s", "1.5", "-5m", "1y"])
def test_a_wrong_duration_is_wrong_usage(manage: Run, duration: str) -> None:
    shown = manage("token", "generate", f"--duration={duration}")
    assert shown.exit_code == 2
    assert "--duration" in shown.err


def test_a_duration_over_the_servers_limit_is_told(manage: Run, project_id: str) -> None:
    shown = manage("token", "generate", "--duration", "400d")
    assert shown.exit_code == 1
    assert "duration_minutes must be a whole number from 1 to 525600, not 576000" in shown.err


def test_without_a_project_there_is_no_token(manage: Run) -> None:
    shown = manage("token", "generate")
    assert shown.exit_code == 1
    assert "manage project create" in shown.err


def test_a_script_is_told_the_choices(manage: Run, project_id: str) -> None:
    created = manage("project", "create", "--name", "other", "--api-key", "sk-key", "--json")
    other = json.loads(created.out)["id"]
    shown = manage("token", "generate")
    assert shown.exit_code == 2
    assert "--project-id" in shown.err
    for choice in (project_id, other, "demo", "other"):
        assert choice in shown.err
    made = manage("token", "generate", "--project-id", other, "--json")
    assert json.loads(made.out)["project_id"] == other


@pytest.mark.parametrize(("typed", "code"), [(b"2\n", 0), (b"9\n", 2)])
def test_a_person_is_asked_which_project(
    manage: Run, project_id: str, typed: bytes, code: int
) -> None:
    manage("project", "create", "--name", "other", "--api-key", "sk-key")
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "llm_proxy", "manage", "token", "generate"],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    os.write(ours, typed)
    out, err = process.communicate(timeout=30)
    os.close(theirs)
    os.close(ours)
    assert process.returncode == code, err
    assert "1  demo" in err
    assert "2  other" in err
    assert is_well_formed_token(out.strip().encode()) == (code == 0)


def test_tokens_are_listed(manage: Run, generate: Callable[..., dict[str, Any]]) -> None:
    named, unnamed = generate("--name", "ci", "--max-requests", "9"), generate()
    lines = manage("token", "list").out.splitlines()
    assert lines[0].split() == ["ID", "NAME", "STATE", "USED", "EXPIRES"]
    assert lines[2].split() == [named["id"], "ci", "active", "0/9", "23h"]
    masked = f"{unnamed['token'][:7]}…{unnamed['token'][-4:]}"
    assert lines[1].split() == [unnamed["id"], masked, "active", "0", "23h"]
    manage("token", "revoke", named["id"])
    listed = json.loads(manage("token", "list", "--active-only", "--json").out)
    assert [token["id"] for token in listed] == [unnamed["id"]]
    elsewhere = manage("token", "list", "--project-id", "nobody")
    assert len(elsewhere.out.splitlines()) == 1
    assert "No tokens yet" in elsewhere.err


def test_a_token_is_shown_by_id_and_by_itself(
    manage: Run, generate: Callable[..., dict[str, Any]]
) -> None:
    token = generate()
    by_id = manage("token", "get", token["id"])
    assert manage("token", "get", token["token"]).out == by_id.out
    assert "State:        active" in by_id.out
    assert token["token"] not in by_id.out
    for unknown in ("nobody", "sk-nobody"):
        shown = manage("token", "get", unknown)
        assert shown.exit_code == 4
        assert "sk-nobody" not in shown.err


def test_an_update_changes_what_it_names(
    manage: Run, generate: Callable[..., dict[str, Any]]
) -> None:
    token = generate("--max-requests", "5")

    def update(*arguments: str) -> dict[str, Any]:
        shown = manage("token", "update", token["token"], *arguments, "--json")
        assert shown.exit_code == 0, shown.err
        updated: dict[str, Any] = json.loads(shown.out)
        return updated

    assert update("--name", "new")["name"] == "new"
    assert update("--max-requests", "0")["max_requests"] is None
    assert lifetime(update("--duration", "30d")) > timedelta(days=29)
    assert update("--expires-at", "2100-01-01T00:00:00Z")["expires_at"] == "2100-01-01T00:00:00Z"
    assert update("--expires-at", "never")["expires_at"] is None
    assert update("--inactive")["is_active"] is False
    assert update("--active")["is_active"] is True
    assert "never" in manage("token", "list").out
    assert update("--rate-limit", "10/s", "--max-concurrent", "0")["max_concurrent"] == 0
    assert update("--rate-limit", "default")["rate_limit"] is None
    assert update("--idle-timeout", "1h", "--not-before", "2020-01-01T00:00:00Z")["not_before"]
    assert update("--idle-timeout", "none")["idle_timeout_seconds"] is None
    assert update("--allow-model", "o3", "--allow-method", "POST")["scope"]["models"] == ["o3"]
    assert update("--allow-model", "any")["scope"]["methods"] == ["POST"]
    assert update("--no-scope")["scope"] is None
    assert update("--inactive", "--cancel-running")["is_active"] is False


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "nothing to update"),
        (["--duration", "1h", "--expires-at", "never"], 2, "either --duration or --expires-at"),
        (["--max-requests", "-1"], 2, "--max-requests"),
        (["--no-scope", "--allow-api", "openai"], 2, "either --no-scope or --allow options"),
        (["--allow-api", "mistral"], 1, "scope.apis names 'mistral', but the configured apis are"),
        (["--rate-limit", "fast"], 1, "rate_limit must be requests in a time, like 10/s"),
        (["--cancel-running"], 2, "--cancel-running goes with --inactive"),
        (["--expires-at", "tomorrow"], 2, "--expires-at must be `never` or a time"),
        (["--expires-at", "2100-01-01"], 2, "not '2100-01-01'"),
    ],
)
def test_a_wrong_update_is_told(
    manage: Run,
    generate: Callable[..., dict[str, Any]],
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    shown = manage("token", "update", generate()["id"], *arguments)
    assert shown.exit_code == code
    assert message in " ".join(shown.err.split())


def test_a_token_is_revoked(manage: Run, generate: Callable[..., dict[str, Any]]) -> None:
    token = generate()
    for arguments in ([], ["--cancel-running"]):
        shown = manage("token", "revoke", token["id"], "--yes", "--json", *arguments)
        assert json.loads(shown.out) == {"id": token["id"], "is_active": False}
    assert "State:        revoked" in manage("token", "get", token["id"]).out
    assert manage("token", "revoke", "nobody").exit_code == 4


def test_all_tokens_of_a_project_are_revoked(
    manage: Run, generate: Callable[..., dict[str, Any]], project_id: str
) -> None:
    for _ in range(2):
        generate()
    shown = manage("token", "revoke", "--project-id", project_id)
    assert "2 of 2 tokens revoked now." in shown.err
    shown = manage("token", "revoke", "--project-id", project_id, "--cancel-running", "--json")
    assert json.loads(shown.out) == {
        "revoked_count": 0,
        "already_revoked_count": 2,
        "total_tokens": 2,
    }


@pytest.mark.parametrize("arguments", [[], ["some-id", "--project-id", "p"]])
def test_a_revocation_names_one_thing(manage: Run, arguments: list[str]) -> None:
    shown = manage("token", "revoke", *arguments)
    assert shown.exit_code == 2
    assert "either a token or --project-id" in " ".join(shown.err.split())


def test_a_rotated_token_is_printed_once(
    manage: Run, generate: Callable[..., dict[str, Any]]
) -> None:
    token = generate()
    rotated = manage("token", "rotate", token["token"])
    assert is_well_formed_token(rotated.out.strip().encode())
    assert rotated.out.strip() != token["token"]
    shown = manage("token", "rotate", token["id"], "--grace", "1h", "--json")
    until = datetime.fromisoformat(json.loads(shown.out)["previous_valid_until"])
    assert timedelta(minutes=59) < until - datetime.now(UTC) <= timedelta(hours=1)
    assert manage("token", "rotate", token["id"], "--grace", "soon").exit_code == 2
