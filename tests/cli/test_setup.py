from __future__ import annotations

import io
import json
import re
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_proxy.cli.main import run
from llm_proxy.env_file import read_env_file
from llm_proxy.home import Home
from llm_proxy.providers import load_providers
from llm_proxy.secrets import is_well_formed_token, new_encryption_key
from llm_proxy.settings import load_settings

OPENAI = "sk-canary-of-openai"
ANTHROPIC = "sk-ant-canary-of-anthropic"


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Home:
    monkeypatch.setenv("LLM_PROXY_HOME", str(tmp_path / "home"))
    return Home(tmp_path / "home")


def _entries(home: Home) -> dict[str, str]:
    return {entry.name: entry.value for entry in read_env_file(home.env_file)}


def _files(home: Home) -> list[str]:
    return sorted(path.name for path in home.path.iterdir()) if home.path.exists() else []


def _as_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert run(["setup", "--json", *arguments]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_files_are_written_for_their_owner_alone(
    capsys: pytest.CaptureFixture[str], home: Home
) -> None:
    assert run(["setup", "--openai-key", OPENAI, "--addr", "127.0.0.1:9999"]) == 0
    assert _files(home) == ["host_id", "llm-proxy.db", "llm-proxy.env", "providers.yaml"]
    modes = {stat.S_IMODE(path.stat().st_mode) for path in home.path.iterdir()}
    assert modes == {0o600}
    settings = load_settings({})
    assert str(settings.listen_addr).endswith(":9999")
    assert settings.config_path == home.providers_file
    assert settings.management_token is not None
    assert settings.encryption_key is not None
    assert load_providers(settings.config_path)[0].default_api == "openai"


def test_token_is_printed_once_and_stored_nowhere(
    capsys: pytest.CaptureFixture[str], home: Home
) -> None:
    assert run(["setup", "--openai-key", OPENAI]) == 0
    printed = capsys.readouterr()
    (token,) = re.findall(r"sk-\S+", printed.out)
    assert is_well_formed_token(token.encode())
    assert "llm-proxy server start" in printed.out
    assert "curl http://127.0.0.1:8080/v1/models" in printed.out
    everything = b"".join(path.read_bytes() for path in home.path.iterdir())
    assert token.encode() not in everything
    assert OPENAI.encode() not in everything
    assert OPENAI not in printed.out + printed.err


def test_json_holds_project_and_token(capsys: pytest.CaptureFixture[str], home: Home) -> None:
    found = _as_json(
        capsys,
        "--openai-key",
        OPENAI,
        "--project",
        " mine ",
        "--duration",
        "30m",
        "--max-requests",
        "5",
    )
    assert found["project"]["name"] == "mine"
    assert found["token"]["max_requests"] == 5
    assert is_well_formed_token(found["token"]["token"].encode())
    with sqlite3.connect(home.database) as database:
        rows = database.execute("SELECT id, project_id, max_requests FROM tokens").fetchall()
    database.close()
    assert rows == [(found["token"]["id"], found["project"]["id"], 5)]


def test_keys_come_from_the_environment_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, home: Home
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", ANTHROPIC)
    assert run(["setup", "--non-interactive"]) == 0
    assert load_providers(home.providers_file)[0].default_api == "anthropic"
    assert "-H 'anthropic-version: 2023-06-01'" in capsys.readouterr().out


def test_keys_come_from_stdin_line_by_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], home: Home
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{OPENAI}\n{ANTHROPIC}\n"))
    _as_json(capsys, "--openai-key", "-", "--anthropic-key", "-")
    with sqlite3.connect(home.database) as database:
        rows = database.execute("SELECT api FROM api_keys ORDER BY api").fetchall()
    database.close()
    assert rows == [("anthropic",), ("openai",)]


def test_files_only_when_no_project_is_wanted(
    capsys: pytest.CaptureFixture[str], home: Home
) -> None:
    assert run(["setup", "--skip-project"]) == 0
    assert _files(home) == ["llm-proxy.env", "providers.yaml"]
    assert "llm-proxy server start" in capsys.readouterr().out
    assert _as_json(capsys, "--skip-project", "--force")["token"] is None


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        ([], 2, "the first project needs an upstream key"),
        (["--openai-key", "sk-…abcd"], 2, "the OpenAI key looks masked; send the whole key"),
        (["--openai-key", "a b"], 2, "the OpenAI key must be visible ASCII"),
        (["--openai-key", OPENAI, "--addr", "x"], 2, "--addr must be HOST:PORT"),
        (["--openai-key", OPENAI, "--duration", "soon"], 2, "'soon' isn't a duration"),
        (["--openai-key", OPENAI, "--duration", "2s"], 2, "a token lives from 1m to 365d"),
        (["--openai-key", OPENAI, "--project", " "], 2, "name must not be empty"),
        (["--openai-key", OPENAI, "--max-requests", "0"], 2, "max-requests"),
    ],
)
def test_refused_input_leaves_nothing(
    capsys: pytest.CaptureFixture[str],
    home: Home,
    arguments: list[str],
    code: int,
    complaint: str,
) -> None:
    assert run(["setup", *arguments]) == code
    printed = capsys.readouterr()
    assert complaint in printed.err
    assert printed.out == ""
    assert _files(home) == []


def test_existing_files_are_kept_without_force(
    capsys: pytest.CaptureFixture[str], home: Home
) -> None:
    home.ensure()
    home.env_file.write_text("LOG_LEVEL=debug\n")
    assert run(["setup", "--openai-key", OPENAI]) == 1
    assert "exists already; `llm-proxy setup --force`" in capsys.readouterr().err
    assert home.env_file.read_text() == "LOG_LEVEL=debug\n"


def test_force_keeps_secrets_other_settings_and_the_old_provider_file(
    capsys: pytest.CaptureFixture[str], home: Home
) -> None:
    _as_json(capsys, "--openai-key", OPENAI)
    before = _entries(home)
    home.env_file.write_text(home.env_file.read_text() + "LOG_LEVEL=debug\n")
    home.providers_file.write_text("# mine\n")
    _as_json(capsys, "--openai-key", OPENAI, "--project", "two", "--addr", ":1", "--force")
    after = _entries(home)
    assert after == {**before, "LISTEN_ADDR": "0.0.0.0:1", "LOG_LEVEL": "debug"}
    assert home.providers_file.with_suffix(".yaml.bak").read_text() == "# mine\n"
    assert "openai" in load_providers(home.providers_file)[0].apis


def test_secrets_that_the_server_made_are_kept(
    capsys: pytest.CaptureFixture[str], home: Home
) -> None:
    home.ensure()
    key = new_encryption_key()
    home.write_secret("encryption_key", key)
    _as_json(capsys, "--openai-key", OPENAI)
    assert _entries(home)["ENCRYPTION_KEY"] == key.reveal()


def test_taken_project_name_leaves_the_files_as_they_were(
    capsys: pytest.CaptureFixture[str], home: Home
) -> None:
    _as_json(capsys, "--openai-key", OPENAI)
    before = {path: path.read_bytes() for path in home.path.iterdir()}
    assert run(["setup", "--openai-key", OPENAI, "--force", "--addr", ":1"]) == 1
    assert "a project named 'default' exists already" in capsys.readouterr().err
    for path, content in before.items():
        if path.suffix in (".env", ".yaml"):
            assert path.read_bytes() == content
    assert not home.providers_file.with_suffix(".yaml.bak").exists()


def test_database_that_cannot_be_made_leaves_nothing(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    home: Home,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("DATABASE_PATH", str(tmp_path / "no" / "x.db"))
    assert run(["setup", "--openai-key", OPENAI]) == 1
    assert "can't be made" in capsys.readouterr().err
    assert _files(home) == []


InTerminal = Callable[[list[str], list[tuple[str, str]]], tuple[int, str]]


def test_person_is_asked_again_until_the_answer_will_do(
    in_terminal: InTerminal, home: Home
) -> None:
    code, shown = in_terminal(
        ["setup"],
        [
            ("OpenAI API key?hidden", "two words\n"),
            ("OpenAI API key?hidden", f"{OPENAI}\n"),
            ("Anthropic API key?hidden", "\n"),
            ("Listen on", "nowhere\n"),
            ("Listen on", "127.0.0.1:7777\n"),
            ("Name of the first project", "asked\n"),
            ("Its token is good for", "7d\n"),
            ("Go ahead?", "y\n"),
        ],
    )
    assert code == 0
    assert "visible ASCII" in shown
    assert "the address must be HOST:PORT" in shown
    assert OPENAI not in shown
    assert _entries(home)["LISTEN_ADDR"] == "127.0.0.1:7777"
    assert "Project    asked" in shown


def test_person_who_declines_gets_nothing(in_terminal: InTerminal, home: Home) -> None:
    code, shown = in_terminal(
        ["setup", "--skip-project"],
        [
            ("OpenAI API key?hidden", "\n"),
            ("Anthropic API key?hidden", "\n"),
            ("Listen on", "\n"),
            ("Go ahead?", "n\n"),
        ],
    )
    assert code == 1
    assert "Nothing was written." in shown
    assert _files(home) == []
