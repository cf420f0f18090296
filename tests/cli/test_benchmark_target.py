from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
import typer

from llm_proxy.benchmark.plan import Target
from llm_proxy.benchmark.presets import PRESETS
from llm_proxy.cli.benchmark_load import LoadChoice, choose_load
from llm_proxy.cli.benchmark_options import Given
from llm_proxy.cli.benchmark_target import (
    Targets,
    confirm_costs,
    given_targets,
    is_local,
)
from llm_proxy.errors import WrongUsage
from llm_proxy.home import Home
from llm_proxy.secrets import Secret
from llm_proxy.server.pidfile import PidFile
from llm_proxy.server.state import ServerState, write_state

CHAT, MESSAGES = PRESETS["chat"], PRESETS["messages"]


def targets_of(**options: Any) -> Targets:
    return given_targets(Given(**options), CHAT, CHAT.endpoint)


def test_targets_have_the_keys_of_the_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "sk-direct")
    given = Given(
        base_url="http://127.0.0.1:1/",
        token=["sk-a", "sk-b"],
        direct_url="https://api.example.com",
        direct_key_env="MY_KEY",
    )
    targets = given_targets(given, MESSAGES, MESSAGES.endpoint)
    assert targets.proxied.base_url == "http://127.0.0.1:1"
    assert targets.proxied.keys == (Secret("sk-a"), Secret("sk-b"))
    assert (targets.proxied.key_header, targets.proxied.key_scheme) == ("x-api-key", "")
    assert targets.direct is not None
    assert targets.direct.keys == (Secret("sk-direct"),)
    assert targets.elsewhere == [targets.direct]


def test_direct_target_never_gets_the_token_of_the_proxy() -> None:
    targets = targets_of(
        base_url="http://127.0.0.1:1", token=["sk-a"], direct_url="http://127.0.0.1:2"
    )
    assert targets.direct is not None
    assert targets.direct.keys == ()


def test_base_url_of_an_sdk_is_understood() -> None:
    targets = targets_of(base_url="http://127.0.0.1:1/openai/v1", direct_url="http://[::1]:2/v1/")
    assert targets.proxied.base_url == "http://127.0.0.1:1/openai"
    assert targets.direct is not None
    assert targets.direct.base_url == "http://[::1]:2"
    other = given_targets(Given(base_url="http://127.0.0.1:1/v1"), CHAT, "/models")
    assert other.proxied.base_url == "http://127.0.0.1:1/v1"


def test_token_comes_from_the_variable_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", "sk-mine")
    assert targets_of(base_url="http://127.0.0.1:1", token_env="MY_TOKEN").proxied.keys == (
        Secret("sk-mine"),
    )


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"base_url": "127.0.0.1"}, "--base-url must be a URL like"),
        ({"base_url": "http://u:s3cret@h"}, "--base-url must be a URL .* without user name"),
        ({"base_url": "http://h", "direct_url": "ftp://h"}, "--direct-url must be"),
        ({"base_url": "http://h", "token": ["s3cret ä"]}, "--token must be visible ASCII"),
        ({"base_url": "http://h", "token_env": "NOT_SET"}, "'NOT_SET' isn't set"),
        ({"base_url": "http://h", "ca_file": Path("/no/such")}, "--ca-file /no/such: No such"),
    ],
)
def test_what_cannot_be_a_target_is_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(WrongUsage, match=reason) as caught:
        targets_of(**options)
    assert "s3cret" not in str(caught.value)


def test_roots_to_trust_are_for_both(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(path))
    targets = targets_of(base_url="https://h", direct_url="https://d", ca_file=path)
    assert {target.ca_file for target in targets.all} == {str(path)}


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("http://127.0.0.1:8080", True),
        ("http://localhost/openai", True),
        ("https://[::1]:1", True),
        ("https://api.openai.com", False),
        ("http://10.0.0.1", False),
    ],
)
def test_what_is_on_this_machine_is_known(url: str, local: bool) -> None:
    assert is_local(url) is local


@pytest.fixture
def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process is the server of the home."""
    home = Home(tmp_path)
    monkeypatch.setenv("LLM_PROXY_HOME", str(tmp_path))
    pid_file = PidFile(home.pid_file)
    pid_file.claim()
    state = ServerState(
        pid=os.getpid(),
        address="127.0.0.1:4711",
        manage_address=None,
        version="1",
        started_at=time.time(),
        runtime_folder=None,
        workers=[],
        flags={},
    )
    write_state(home.state_file, state)
    yield
    pid_file.release()


@pytest.mark.usefixtures("running")
def test_server_of_this_home_is_watched_when_it_is_the_target() -> None:
    assert targets_of(base_url="http://localhost:4711").pid == os.getpid()
    assert targets_of(base_url="http://localhost:4711", pid=1).pid == 1
    assert targets_of(base_url="http://localhost:4712").pid is None
    assert targets_of(base_url="http://example.com:4711").pid is None


def elsewhere() -> Targets:
    return Targets(
        proxied=Target(base_url="http://127.0.0.1:1"),
        direct=Target(base_url="https://api.example.com"),
    )


def choice(**options: Any) -> LoadChoice:
    return choose_load(Given(**options), is_elsewhere=True, is_throwaway=False)


class Terminal:
    def isatty(self) -> bool:
        return True


class Pipe:
    def isatty(self) -> bool:
        return False


def test_script_must_say_yes_before_anything_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", Pipe())
    with pytest.raises(WrongUsage, match=r"Up to 101 requests will .* api.example.com.*--yes"):
        confirm_costs(elsewhere(), choice(), yes=False)


def test_arrivals_by_lot_are_counted_on_average_only(capsys: pytest.CaptureFixture[str]) -> None:
    confirm_costs(elsewhere(), choice(rate="5/s", requests=10, poisson=True), yes=True)
    assert "About 11 requests will be sent to api.example.com" in capsys.readouterr().err


def test_yes_still_names_the_target(capsys: pytest.CaptureFixture[str]) -> None:
    confirm_costs(elsewhere(), choice(duration="30s"), yes=True)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "As many requests as are answered in 30 s will be sent to api.example.com" in printed.err


def test_counted_requests_with_a_warm_up_are_as_many_as_are_answered(
    capsys: pytest.CaptureFixture[str],
) -> None:
    confirm_costs(elsewhere(), choice(requests=5, warm_up="2s"), yes=True)
    assert "and those of the warm-up" in capsys.readouterr().err


def test_person_who_says_no_sends_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr("typer.confirm", lambda question, err: False)
    with pytest.raises(typer.Exit) as caught:
        confirm_costs(elsewhere(), choice(), yes=False)
    assert caught.value.exit_code == 1
    assert "Nothing was sent" in capsys.readouterr().err


def test_target_on_this_machine_is_warned_about_only(
    capsys: pytest.CaptureFixture[str],
) -> None:
    local = Targets(proxied=Target(base_url="http://127.0.0.1:1"))
    confirm_costs(local, choice(), yes=False)
    assert "what it forwards to a paid API is billed" in capsys.readouterr().err


def test_throwaway_server_costs_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    own = Targets(proxied=Target(base_url="http://127.0.0.1:1"), is_throwaway=True)
    confirm_costs(own, choice(), yes=False)
    assert capsys.readouterr().err == ""
