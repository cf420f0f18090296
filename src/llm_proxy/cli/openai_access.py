"""How `openai` commands reach a model: options they all have, and where they lead."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from llm_proxy.errors import WrongUsage
from llm_proxy.settings import load_place

if TYPE_CHECKING:
    from llm_proxy.chat.target import Target
    from llm_proxy.secrets import Secret
    from llm_proxy.server.local_server import LocalServer

_DEFAULT_URL = "http://localhost:8080"


def _check_url(value: str | None) -> str | None:
    from llm_proxy.setting_values import parse_base_url

    try:
        return None if value is None else parse_base_url(value)
    except ValueError as exc:
        raise typer.BadParameter(f"must be {exc}, not {value!r}") from exc


Api = Annotated[
    Literal["openai", "anthropic"],
    typer.Option("--api", metavar="API", help="Which to speak: openai or anthropic."),
]
BaseUrl = Annotated[
    str | None,
    typer.Option(
        "--base-url",
        "--proxy",
        envvar="PROXY_URL",
        metavar="URL",
        callback=_check_url,
        help="The proxy, or unix:/PATH; else the running one of this home, or localhost:8080.",
    ),
]
Token = Annotated[
    str | None,
    typer.Option(
        "--token", envvar="PROXY_TOKEN", metavar="TOKEN|-", help="Its token, - for stdin."
    ),
]


def find_target(
    api: Literal["openai", "anthropic"], base_url: str | None, token: str | None
) -> Target:
    """What the options say, else the server of this home."""
    from llm_proxy.chat.target import Target

    secret = _secret(token)
    if base_url is not None:
        return Target(base_url=base_url, token=secret, api=api)
    server = _server_of_this_home()
    if server is None:
        return Target(base_url=_DEFAULT_URL, token=secret, api=api)
    return Target(base_url=server.url, token=secret, api=api, tls=server.tls_context())


def _secret(token: str | None) -> Secret:
    from llm_proxy.secrets import Secret

    if not token:
        raise WrongUsage(
            "there is no token; make one with `llm-proxy manage token generate`, "
            "and set PROXY_TOKEN to it or pass it with --token"
        )
    if token == "-":
        token = _from_stdin()
    if not (token.isascii() and token.isprintable() and " " not in token):
        raise typer.BadParameter(
            "must be visible ASCII characters without blanks", param_hint="--token"
        )
    return Secret(token)


def _from_stdin() -> str:
    """Its first line; a question may follow."""
    if sys.stdin.isatty():
        token = str(typer.prompt("Token", hide_input=True, err=True)).strip()
    else:
        # The rest may be a question, so no text layer may read ahead.
        token = sys.stdin.buffer.readline().decode("ascii", "replace").strip()
    if not token:
        raise typer.BadParameter("is -, but nothing came from stdin", param_hint="--token")
    return token


def _server_of_this_home() -> LocalServer | None:
    from llm_proxy.server.local_server import LocalServer
    from llm_proxy.server.pidfile import running_pid
    from llm_proxy.server.state import read_state

    place = load_place(None)
    pid = running_pid(place.pid_file)
    state = None if pid is None else read_state(place.home.state_file)
    if state is None or state.pid != pid:
        return None
    if state.proxy_protocol:
        raise WrongUsage(
            "the running server expects the PROXY protocol, which isn't spoken here; "
            "name what stands in front of it with --base-url or PROXY_URL"
        )
    return LocalServer.running(state)
