from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from llm_proxy.cli.main import run

PLAIN = """
apis:
  one:
    base_url: https://one.example
    allowed_endpoints: [/v1/chat]
    allowed_methods: [POST]
"""


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("LLM_PROXY_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def _file(tmp_path: Path, text: str) -> str:
    path = tmp_path / "p.yaml"
    path.write_text(text)
    return str(path)


def test_valid_configuration_exits_0(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(["config", "validate"]) == 0
    assert "built-in provider file and the settings are valid" in capsys.readouterr().out
    file = _file(tmp_path, PLAIN)
    for arguments in ([file], ["-c", file], ["--config", file]):
        assert run(["config", "validate", *arguments]) == 0
        assert f"{file} and the settings are valid; apis: one (default)" in capsys.readouterr().out


def test_mistake_exits_1_with_its_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = _file(tmp_path, PLAIN.replace("allowed_methods", "alowed_methods"))
    assert run(["config", "validate", file]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == (
        f"Error: {file}:6: apis.one.alowed_methods is no known key; did you mean allowed_methods?\n"
    )


def test_mistake_as_json(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(["config", "validate", "--json", _file(tmp_path, "apis: [")]) == 1
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert found["valid"] is False
    assert ":1: this isn't valid YAML" in found["error"]
    assert printed.err == ""


def test_validity_as_json(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = _file(tmp_path, PLAIN + "    timeouts: {flush_interval: 1s}\n")
    assert run(["config", "validate", "--json", file]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["valid"], found["file"], found["apis"]) == (True, file, ["one"])
    assert len(found["warnings"]) == 1


def test_warnings_go_to_stderr(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MANAGEMENT_TOKEN", "short")
    monkeypatch.setenv("OPENAI_API_URL", "http://upstream.example/v1")
    assert run(["config", "validate"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("Warning: ") for line in lines)
    assert "MANAGEMENT_TOKEN is short" in lines[-1]


def test_env_file_is_checked_too(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    env = tmp_path / "x.env"
    env.write_text("LOG_LEVEL=loud\n")
    assert run(["config", "validate", "--env", str(env)]) == 1
    assert f"Error: {env}:1: LOG_LEVEL must be one of" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({"TLS_CERT": "cert.pem"}, "TLS_KEY is missing"),
        ({"TLS_CERT": "no.pem", "TLS_KEY": "no.pem"}, "no.pem can't be read"),
        ({"METRICS_PATH": "/openai/metrics"}, "lies under the paths of the api 'openai'"),
        ({"HTTPS_PROXY": "socks5://host:1"}, "HTTPS_PROXY: proxies are spoken to over http"),
    ],
)
def test_what_would_stop_a_start_is_not_valid(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    sentence: str,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert run(["config", "validate"]) == 1
    assert sentence in capsys.readouterr().err


def test_looking_makes_no_event_log(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FILE_EVENT_LOG", str(tmp_path / "events.jsonl"))
    assert run(["config", "validate"]) == 0
    assert not (tmp_path / "events.jsonl").exists()


def test_two_different_files_are_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "validate", "a.yaml", "-c", "b.yaml"]) == 2
    assert "give the file once" in capsys.readouterr().err


def test_show_prints_settings_with_sources_and_masked_secrets(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    monkeypatch.setenv("MANAGEMENT_TOKEN", "canary-of-the-token")
    home.mkdir()
    (home / "llm-proxy.env").write_text("REQUEST_TIMEOUT=90s\n")
    assert run(["config", "show"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"^MANAGEMENT_TOKEN +\*\*\* +environment variable", shown, re.M)
    assert re.search(r"^REQUEST_TIMEOUT +1m30s +.*llm-proxy\.env:1$", shown, re.M)
    assert re.search(r"^LISTEN_ADDR +127\.0\.0\.1:8080 +default$", shown, re.M)
    assert "canary" not in shown


def test_shown_providers_are_a_valid_file(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run(["config", "show"]) == 0
    text = capsys.readouterr().out
    file = _file(tmp_path, text[text.index("# Providers: built in") :])
    assert run(["config", "validate", file]) == 0
    assert capsys.readouterr().err == ""


def test_show_as_json(capsys: pytest.CaptureFixture[str], tmp_path: Path, home: Path) -> None:
    assert run(["config", "show", "--json", "-c", _file(tmp_path, PLAIN)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["settings"]["LLM_PROXY_HOME"]["value"] == str(home)
    assert found["settings"]["MANAGE_ADDR"] == {"value": None, "source": "default"}
    assert found["settings"]["API_CONFIG_PATH"]["source"] == "--config"
    assert found["providers"]["apis"]["one"]["base_url"] == "https://one.example"
    assert yaml.safe_dump(found["providers"])


def test_terminal_gets_a_table(
    in_terminal: Callable[[list[str], list[tuple[str, str]]], tuple[int, str]],
) -> None:
    code, shown = in_terminal(["config", "show"], [])
    assert code == 0
    assert "┏" in shown
    assert "…" not in shown  # values and sources are folded, not cut


def test_nothing_is_created_by_looking(home: Path) -> None:
    assert run(["config", "show"]) == 0
    assert run(["config", "validate"]) == 0
    assert not home.exists()
