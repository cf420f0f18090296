"""`llm-proxy openai` through a real server, with nothing but its token."""

from __future__ import annotations

import json

import pytest

from tests.end_to_end.server_process import ServerProcess, run_command


@pytest.fixture
def environ(server: ServerProcess, token: str) -> dict[str, str]:
    """No address: the running server of the home is found."""
    return {**server.environ, "PROXY_TOKEN": token}


@pytest.mark.parametrize("api", ["openai", "anthropic"])
def test_question_in_a_pipe_is_answered(environ: dict[str, str], api: str) -> None:
    arguments = ("openai", "chat", "--api", api, "--max-tokens", "3")
    done = run_command(environ, *arguments, stdin="hello")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == 'You said: "hello".\n'


def test_models_are_listed(environ: dict[str, str]) -> None:
    done = run_command(environ, "openai", "models", "--json")
    assert "gpt-4o" in [model["id"] for model in json.loads(done.stdout)]


def test_revoked_token_exits_3(environ: dict[str, str]) -> None:
    environ["PROXY_TOKEN"] = "sk-never-made"
    done = run_command(environ, "openai", "chat", stdin="hello")
    assert (done.returncode, done.stdout) == (3, "")
    assert "llm-proxy manage token generate" in done.stderr


def test_missing_model_exits_4(environ: dict[str, str]) -> None:
    done = run_command(environ, "openai", "chat", "--model", "no-such-one", stdin="hello")
    assert (done.returncode, done.stdout) == (4, "")
    assert "the model no-such-one can't be used" in done.stderr
