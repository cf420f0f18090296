from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.cli.conftest import Run
from tests.end_to_end.mock_thread import MockThread


@pytest.fixture(scope="module")
def mock() -> Iterator[MockThread]:
    mock = MockThread()
    yield mock
    mock.close()


@pytest.fixture(autouse=True)
def reaching_the_mock(mock: MockThread, monkeypatch: pytest.MonkeyPatch) -> None:
    """By environment alone."""
    monkeypatch.setenv("PROXY_URL", f"http://{mock.address}")
    monkeypatch.setenv("PROXY_TOKEN", "sk-token-of-tests-0123")


def test_models_are_a_table(llm_proxy: Run) -> None:
    done = llm_proxy("openai", "models")
    assert done.exit_code == 0
    assert done.out.splitlines()[:2] == [
        "MODEL                   OWNER  CREATED",
        "gpt-4o                  mock   2023-11-14 22:13Z",
    ]


def test_models_are_one_json_document(llm_proxy: Run) -> None:
    done = llm_proxy("openai", "models", "--api", "anthropic", "--json")
    assert json.loads(done.out)[0] == {
        "id": "claude-haiku-4-5",
        "name": "Claude Haiku 4 5",
        "owner": None,
        "created_at": "2023-11-14T22:13:20Z",
    }


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--temperature", "3"], "--temperature"),
        (["--max-tokens", "-1"], "--max-tokens"),
        (["--api", "other"], "--api"),
        (["--base-url", "ftp://x"], "--base-url"),
        (["--token", "two words"], "--token"),
    ],
)
def test_wrong_options_exit_2(llm_proxy: Run, arguments: list[str], words: str) -> None:
    done = llm_proxy("openai", "chat", *arguments)
    assert done.exit_code == 2
    assert words in done.err


def test_missing_token_exits_2(llm_proxy: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PROXY_TOKEN")
    for command in ("chat", "models"):
        done = llm_proxy("openai", command)
        assert (done.exit_code, done.out) == (2, "")
        assert done.err.startswith("Error: there is no token; make one with")


@pytest.mark.parametrize("word", ["PROXY_URL", "PROXY_TOKEN", "MODEL", "--no-stream", "--system"])
def test_help_names_what_can_be_set(
    llm_proxy: Run, monkeypatch: pytest.MonkeyPatch, word: str
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert word in llm_proxy("openai", "chat", "--help").out
