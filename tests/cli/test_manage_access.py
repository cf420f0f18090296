from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_proxy.home import Home
from llm_proxy.secrets import Secret

Run = Callable[..., Any]

MANAGEMENT_TOKEN = "management-token-for-tests"


def test_the_token_of_this_machines_server_is_found(llm_proxy: Run, control_plane: str) -> None:
    home = Home.default(os.environ)
    home.ensure()
    home.write_secret("management_token", Secret(MANAGEMENT_TOKEN))
    shown = llm_proxy("manage", "project", "list", "--manage-api-base-url", control_plane)
    assert shown.exit_code == 0


def test_settings_of_the_homes_env_file_are_obeyed(llm_proxy: Run, control_plane: str) -> None:
    home = Home.default(os.environ)
    home.ensure()
    home.env_file.write_text(
        f"MANAGEMENT_TOKEN={MANAGEMENT_TOKEN}\nLLM_PROXY_MANAGE_API_BASE_URL={control_plane}\n"
    )
    assert llm_proxy("manage", "project", "list").exit_code == 0


def test_this_machines_own_token_is_not_sent_elsewhere(llm_proxy: Run) -> None:
    home = Home.default(os.environ)
    home.ensure()
    home.write_secret("management_token", Secret(MANAGEMENT_TOKEN))
    elsewhere = "https://proxy.example.com"
    shown = llm_proxy("manage", "project", "list", "--manage-api-base-url", elsewhere)
    assert shown.exit_code == 3
    assert f"{elsewhere} isn't on this machine" in shown.err
    assert "--management-token" in shown.err


def test_without_any_token_one_is_asked_for(llm_proxy: Run, control_plane: str) -> None:
    shown = llm_proxy("manage", "project", "list", "--manage-api-base-url", control_plane)
    assert shown.exit_code == 3
    assert "set MANAGEMENT_TOKEN or pass --management-token" in shown.err


def test_the_token_can_come_from_stdin(manage: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MANAGEMENT_TOKEN")
    arguments = ("project", "list", "--management-token", "-")
    assert manage(*arguments, stdin=f"{MANAGEMENT_TOKEN}\n").exit_code == 0
    shown = manage(*arguments, stdin="")
    assert shown.exit_code == 2
    assert "nothing came from stdin" in " ".join(shown.err.split())


def test_a_token_that_no_header_can_carry_is_refused(manage: Run) -> None:
    shown = manage("project", "list", "--management-token", "müll")
    assert shown.exit_code == 2
    assert "visible ASCII" in shown.err


@pytest.mark.parametrize(
    "url", ["localhost:8080", "ftp://x", "http://", "http://user:secret@host", "http://h:99999"]
)
def test_an_address_that_is_none_is_wrong_usage(manage: Run, url: str) -> None:
    shown = manage("project", "list", "--manage-api-base-url", url)
    assert shown.exit_code == 2
    assert "--manage-api-base-url" in shown.err


def test_flags_come_before_the_environment(manage: Run) -> None:
    shown = manage("project", "list", "--management-token", "other")
    assert shown.exit_code == 3


def test_an_unknown_setting_is_told(
    manage: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LLM_PROXY_HOMME", str(tmp_path))
    shown = manage("project", "list")
    assert shown.exit_code == 1
    assert "LLM_PROXY_HOMME is no setting; did you mean LLM_PROXY_HOME" in shown.err
