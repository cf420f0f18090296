"""`llm-proxy manage token`."""

from __future__ import annotations

import contextlib
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llm_proxy.cli.manage_access import (
    AsJSON,
    BaseUrl,
    ManagementToken,
    Yes,
    confirm,
    connect,
    print_json,
    tell,
)
from llm_proxy.errors import LLMProxyError

if TYPE_CHECKING:
    from llm_proxy.manage.client import ManagementClient
    from llm_proxy.manage.objects import NewToken, Project, Token

app = typer.Typer(
    help="Tokens: what clients use instead of the upstream keys.", no_args_is_help=True
)

TokenId = Annotated[
    str,
    typer.Argument(metavar="ID|TOKEN", help="Id of the token, or the token itself (never sent)."),
]
Name = Annotated[str | None, typer.Option("--name", metavar="TEXT", help="To recognise it by.")]
MaxRequests = Annotated[
    int | None,
    typer.Option(
        "--max-requests", metavar="N", min=0, help="Requests it is good for in all; 0: no cap."
    ),
]


@app.command()
def generate(
    *,
    project_id: Annotated[
        str | None,
        typer.Option(
            "--project-id", metavar="ID", help="The project it is for; else the only one there is."
        ),
    ] = None,
    duration: Annotated[
        str,
        typer.Option(
            "--duration", metavar="24h|30m|7d", help="How long it lives; a bare number is minutes."
        ),
    ] = "24h",
    max_requests: MaxRequests = None,
    name: Name = None,
    base_url: BaseUrl = None,
    token: ManagementToken = None,
    as_json: AsJSON = False,
) -> None:
    """Make a token and print it: the only time it is shown.

    Example: TOKEN=$(llm-proxy manage token generate --duration 7d)
    """
    fields: dict[str, Any] = {"duration_minutes": _minutes(duration, "--duration")}
    if max_requests:
        fields["max_requests"] = max_requests
    if name is not None:
        fields["name"] = name
    with connect(base_url, token) as client:
        fields["project_id"] = project_id or _choose_project(client)
        _show_new(client.create_token(fields), as_json=as_json)


@app.command("list")
def list_tokens(
    *,
    project_id: Annotated[
        str | None, typer.Option("--project-id", metavar="ID", help="Of this project only.")
    ] = None,
    active_only: Annotated[
        bool, typer.Option("--active-only", help="Neither revoked nor expired.")
    ] = False,
    base_url: BaseUrl = None,
    token: ManagementToken = None,
    as_json: AsJSON = False,
) -> None:
    """List tokens, the newest first."""
    with connect(base_url, token) as client:
        tokens = client.list_tokens(project_id=project_id, active_only=active_only)
    if as_json:
        print_json(tokens)
        return
    from llm_proxy.manage.tables import print_table

    now = datetime.now(UTC)
    rows = [
        (t.id, t.name or t.token, t.state(now), _used(t), _expiry(t.expires_at, now))
        for t in tokens
    ]
    print_table(("Id", "Name", "State", "Used", "Expires"), rows)
    if not tokens:
        tell("No tokens yet. Make one with: llm-proxy manage token generate")


@app.command("get")
def get_token(
    token_id: TokenId,
    *,
    base_url: BaseUrl = None,
    token: ManagementToken = None,
    as_json: AsJSON = False,
) -> None:
    """Show one token, by its id or by the token itself."""
    with connect(base_url, token) as client:
        _show(_find(client, token_id), as_json=as_json)


@app.command("update")
def update_token(
    token_id: TokenId,
    *,
    name: Name = None,
    max_requests: MaxRequests = None,
    duration: Annotated[
        str | None,
        typer.Option("--duration", metavar="24h|30m|7d", help="Let it expire so long from now."),
    ] = None,
    expires_at: Annotated[
        str | None,
        typer.Option(
            "--expires-at", metavar="TIME|never", help="RFC 3339, like 2030-01-31T12:00:00Z."
        ),
    ] = None,
    active: Annotated[
        bool | None,
        typer.Option("--active/--inactive", help="Let it work again, or revoke it."),
    ] = None,
    base_url: BaseUrl = None,
    token: ManagementToken = None,
    as_json: AsJSON = False,
) -> None:
    """Change a token; what isn't named stays.

    Example: llm-proxy manage token update ID --duration 30d --max-requests 0
    """
    fields: dict[str, Any] = _expiry_fields(duration, expires_at)
    given = {"name": name, "max_requests": max_requests, "is_active": active}
    fields |= {field: value for field, value in given.items() if value is not None}
    if not fields:
        raise typer.BadParameter("nothing to update: name at least one option, like --duration")
    with connect(base_url, token) as client:
        _show(client.update_token(_id_of(client, token_id), fields), as_json=as_json)


@app.command()
def revoke(
    token_id: Annotated[
        str | None, typer.Argument(metavar="ID|TOKEN", help="The token to revoke.")
    ] = None,
    *,
    project_id: Annotated[
        str | None,
        typer.Option("--project-id", metavar="ID", help="Revoke every token of this project."),
    ] = None,
    yes: Yes = False,
    base_url: BaseUrl = None,
    token: ManagementToken = None,
    as_json: AsJSON = False,
) -> None:
    """Stop a token from working, at once; or every token of a project.

    Example: llm-proxy manage token revoke --project-id ID --yes
    """
    if (token_id is None) == (project_id is None):
        raise typer.BadParameter("name either a token or --project-id")
    with connect(base_url, token) as client:
        if project_id is not None:
            confirm(f"Revoke every token of project {project_id}?", yes=yes)
            result = client.revoke_project_tokens(project_id)
            tell(f"{result.revoked_count} of {result.total_tokens} tokens revoked now.")
            if as_json:
                print_json(result)
            return
        found = _id_of(client, token_id or "")
        confirm(f"Revoke token {found}?", yes=yes)
        client.revoke_token(found)
    tell("Token revoked.")
    if as_json:
        print_json({"id": found, "is_active": False})


@app.command()
def rotate(
    token_id: TokenId,
    *,
    grace: Annotated[
        str,
        typer.Option(
            "--grace", metavar="1h|30m", help="How long the old one goes on working besides."
        ),
    ] = "0",
    base_url: BaseUrl = None,
    token: ManagementToken = None,
    as_json: AsJSON = False,
) -> None:
    """Replace a token by a new secret with the same limits and counters, and print it once."""
    grace_s = round(_seconds(grace, "--grace"))
    with connect(base_url, token) as client:
        rotated = client.rotate_token(_id_of(client, token_id), grace_s=grace_s)
    _show_new(rotated, as_json=as_json)


def _find(client: ManagementClient, text: str) -> Token:
    from llm_proxy.secrets import TOKEN_PREFIX, Secret

    if text.startswith(TOKEN_PREFIX):
        return client.find_token(Secret(text))
    return client.get_token(text)


def _id_of(client: ManagementClient, text: str) -> str:
    from llm_proxy.secrets import TOKEN_PREFIX

    return _find(client, text).id if text.startswith(TOKEN_PREFIX) else text


def _choose_project(client: ManagementClient) -> str:
    """The only one there is; else a person is asked, and a script is told the choices."""
    projects = client.list_projects()
    if not projects:
        raise LLMProxyError(
            "there is no project yet; create one with: llm-proxy manage project create --name NAME"
        )
    if len(projects) == 1:
        return projects[0].id
    if sys.stdin.isatty():
        return _ask_project(projects)
    choices = "\n".join(f"  {project.id}  {project.name}" for project in projects)
    raise typer.BadParameter(f"there are several projects; name one with --project-id:\n{choices}")


def _ask_project(projects: list[Project]) -> str:
    for number, project in enumerate(projects, start=1):
        tell(f"{number:>3}  {project.name}  ({project.id})")
    chosen: int = typer.prompt("Project number", type=int, err=True)
    if not 1 <= chosen <= len(projects):
        raise typer.BadParameter(f"there is no project number {chosen}")
    return projects[chosen - 1].id


def _seconds(text: str, option: str) -> float:
    from llm_proxy.quantities import parse_duration

    try:
        return parse_duration(text, bare_unit="m")
    except ValueError as exc:
        raise typer.BadParameter(f"{option}: {exc}; a bare number is minutes") from exc


def _minutes(text: str, option: str) -> int:
    minutes = _seconds(text, option) / 60
    if minutes < 1 or minutes != int(minutes):
        raise typer.BadParameter(f"{option} must be a whole number of minutes, at least 1")
    return int(minutes)


def _expiry_fields(duration: str | None, expires_at: str | None) -> dict[str, Any]:
    from datetime import timedelta

    if duration is not None and expires_at is not None:
        raise typer.BadParameter("name either --duration or --expires-at")
    if duration is not None:
        lifetime = timedelta(minutes=_minutes(duration, "--duration"))
        return {"expires_at": datetime.now(UTC) + lifetime}
    if expires_at is not None:
        return {"expires_at": None if expires_at == "never" else _moment(expires_at)}
    return {}


def _moment(text: str) -> datetime:
    with contextlib.suppress(ValueError):
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is not None:
            return moment
    raise typer.BadParameter(
        "--expires-at must be `never` or a time with its zone, like 2030-01-31T12:00:00Z, "
        f"not {text!r}"
    )


def _used(token: Token) -> str:
    cap = "" if token.max_requests is None else f"/{token.max_requests}"
    return f"{token.request_count}{cap}"


def _expiry(at: datetime | None, now: datetime) -> str:
    """How long it has, roughly: `6d`, `23h`, `5m`."""
    if at is None:
        return "never"
    left = int((at - now).total_seconds())
    if left <= 0:
        return "-"
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if left >= 2 * length:
            return f"{left // length}{unit}"
    return f"{left}s"


def _show(token: Token, *, as_json: bool) -> None:
    if as_json:
        print_json(token)
        return
    from llm_proxy.manage.tables import print_details

    print_details(
        [
            ("Id", token.id),
            ("Name", token.name),
            ("Token", token.token),
            ("Project", token.project_id),
            ("State", token.state(datetime.now(UTC))),
            ("Expires", "never" if token.expires_at is None else token.expires_at),
            ("Requests", _used(token)),
            ("Cache hits", token.cache_hit_count),
            ("Created", token.created_at),
            ("Last used", token.last_used_at),
            ("Deactivated", token.deactivated_at),
        ]
    )


def _show_new(new: NewToken, *, as_json: bool) -> None:
    """The token alone on stdout, so that a script can take it from there."""
    if as_json:
        print_json(new)
        return
    end = "never expires"
    if new.expires_at is not None:
        end = f"expires {new.expires_at:%Y-%m-%d %H:%M} UTC"
    cap = "no cap" if new.max_requests is None else f"{new.max_requests} requests"
    tell(f"Token {new.id} of project {new.project_id}: {end}, {cap}.")
    tell("Keep it now: it is not shown again.")
    print(new.token)
