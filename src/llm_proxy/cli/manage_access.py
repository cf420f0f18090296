"""How `manage` commands reach the server: options they all have, the client, and questions."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llm_proxy.errors import NotAuthorised
from llm_proxy.settings import resolve_settings

if TYPE_CHECKING:
    from llm_proxy.manage.client import ManagementClient
    from llm_proxy.secrets import Secret
    from llm_proxy.settings import Settings


def _check_url(value: str | None) -> str | None:
    from llm_proxy.setting_values import parse_base_url

    try:
        return None if value is None else parse_base_url(value)
    except ValueError as exc:
        raise typer.BadParameter(f"must be {exc}, not {value!r}") from exc


BaseUrl = Annotated[
    str | None,
    typer.Option(
        "--manage-api-base-url",
        envvar="LLM_PROXY_MANAGE_API_BASE_URL",
        metavar="URL|unix:PATH",
        callback=_check_url,
        help="Address of the server; else the running one of this home, or http://localhost:8080.",
    ),
]
ManagementToken = Annotated[
    str | None,
    typer.Option(
        "--management-token",
        envvar="MANAGEMENT_TOKEN",
        metavar="TOKEN|-",
        help="Its management token, - for stdin; else that of this machine's server.",
    ),
]
AsJSON = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask for confirmation.")]


def connect(base_url: str | None, token: str | None) -> ManagementClient:
    """A client for what the options say, else the settings of this machine."""
    from llm_proxy.manage.client import ManagementClient
    from llm_proxy.secrets import Secret

    resolved = resolve_settings({"manage_api_base_url": base_url})
    url = resolved.settings.manage_api_base_url
    if resolved.sources["LLM_PROXY_MANAGE_API_BASE_URL"] == "default":
        url = _url_of_this_home(resolved.settings) or url
    if token is None:
        return ManagementClient(url, _token_of_this_machine(resolved.settings, resolved.sources))
    given = read_secret_line("--management-token") if token == "-" else Secret(token)
    if not (given.reveal().isascii() and given.reveal().isprintable()):
        raise typer.BadParameter("the management token must be visible ASCII characters")
    return ManagementClient(url, given)


def _url_of_this_home(settings: Settings) -> str | None:
    """Of its running server, whatever that listens on and whether it speaks TLS."""
    from llm_proxy.server.local_server import control_url
    from llm_proxy.server.pidfile import running_pid
    from llm_proxy.server.state import read_state

    pid = running_pid(settings.pid_file)
    state = read_state(settings.home.state_file) if pid is not None else None
    return control_url(state) if state is not None and state.pid == pid else None


def _token_of_this_machine(settings: Any, sources: dict[str, str]) -> Secret:
    from llm_proxy.manage.client import is_loopback

    token: Secret | None = settings.management_token
    if token is None:
        raise NotAuthorised(
            "there is no management token here; set MANAGEMENT_TOKEN or pass --management-token"
        )
    generated = str(settings.home.secret_file("management_token"))
    if sources["MANAGEMENT_TOKEN"] == generated and not is_loopback(settings.manage_api_base_url):
        raise NotAuthorised(
            f"{settings.manage_api_base_url} isn't on this machine, so this machine's own "
            "management token isn't sent there; pass that server's with --management-token"
        )
    return token


def read_secret_line(option: str) -> Secret:
    """The first line of stdin."""
    from llm_proxy.secrets import Secret

    line = sys.stdin.readline().strip()
    if not line:
        raise typer.BadParameter(f"{option} is -, but nothing came from stdin")
    return Secret(line)


def ask_secret(question: str, option: str) -> Secret:
    """Asks a person without echo; a script is told which option is missing."""
    from llm_proxy.secrets import Secret

    if not sys.stdin.isatty():
        raise typer.BadParameter(f"{option} is required (- reads it from stdin)")
    return Secret(str(typer.prompt(question, hide_input=True, err=True)).strip())


def confirm(question: str, *, yes: bool) -> None:
    """Asks a person; a script is taken at its word."""
    if not yes and sys.stdin.isatty() and not typer.confirm(question, err=True):
        tell("Nothing was changed.")
        raise typer.Exit(1)


def print_json(document: object) -> None:
    import msgspec

    print(msgspec.json.format(msgspec.json.encode(document), indent=2).decode())


def tell(message: str) -> None:
    """For the person who watches: stdout is for results."""
    print(message, file=sys.stderr)
