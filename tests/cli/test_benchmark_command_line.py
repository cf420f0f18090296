from __future__ import annotations

from collections.abc import Callable

import pytest
import typer
from typer.main import get_command

from llm_proxy.cli.benchmark_command_line import (
    command_line,
    is_from_environment,
    without_query_values,
)
from llm_proxy.cli.benchmark_options import Endpoint, Headers, Mock, Requests, Tokens
from llm_proxy.secrets import Secret

Shown = Callable[..., str]


@pytest.fixture
def shown() -> Shown:
    def show(*arguments: str, secrets: tuple[str, ...] = ()) -> str:
        lines = []

        def benchmark(
            context: typer.Context,
            token: Tokens = None,
            header: Headers = None,
            mock: Mock = False,
            requests: Requests = None,
            endpoint: Endpoint = None,
            url: str = "",
        ) -> None:
            lines.append(command_line(context, map(Secret, secrets)))
            lines.append(str(is_from_environment(context, "token")))

        app = typer.Typer()
        app.command()(benchmark)
        get_command(app)(list(arguments), standalone_mode=False)
        return "\n".join(lines)

    return show


def test_options_stand_as_they_were_given(shown: Shown) -> None:
    line = shown("--url", "http://h/?a b", "-n", "5", "--mock").splitlines()[0]
    assert line == "llm-proxy benchmark --mock --requests 5 --url 'http://h/?a b'"


def test_defaults_and_variables_are_no_part_of_it(
    shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROXY_TOKEN", "sk-s3cret")
    assert shown() == "llm-proxy benchmark\nTrue"


def test_tokens_are_masked(shown: Shown) -> None:
    line = shown("--token", "sk-a", "--token", "-")
    assert line == "llm-proxy benchmark --token *** --token -\nFalse"


def test_headers_that_may_hold_a_key_are_masked(shown: Shown) -> None:
    line = shown("-H", "X-Api-Key: sk-a", "-H", "Accept: text/plain", "-H", "X-Mock-Cut: 3")
    assert "sk-a" not in line
    assert "'X-Api-Key: ***'" in line
    assert "'Accept: text/plain'" in line
    assert "'X-Mock-Cut: 3'" in line


def test_secret_is_masked_wherever_it_stands(shown: Shown) -> None:
    assert "s3cret" not in shown("--url", "http://h/sk-s3cret/x", secrets=("sk-s3cret",))


def test_short_key_takes_no_words_apart(shown: Shown) -> None:
    assert shown("--url", "http://h/x", secrets=("x",)).startswith("llm-proxy benchmark --url")


def test_endless_command_is_cut(shown: Shown) -> None:
    assert len(shown("--url", "x" * 10_000).splitlines()[0]) == 2001


def test_a_key_in_the_query_is_masked(shown: Shown) -> None:
    line = shown("--endpoint", "/v1/x?key=sk-a&alt=sse&flag").splitlines()[0]
    assert line == "llm-proxy benchmark --endpoint '/v1/x?key=***&alt=***&flag'"
    assert without_query_values("/v1/x") == "/v1/x"
