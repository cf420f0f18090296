"""`llm-proxy manage token`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

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
from llm_proxy.cli.manage_limits import (
    CancelRunning,
    MaxConcurrent,
    RateBurst,
    RateLimit,
    limit_fields,
)
from llm_proxy.cli.manage_token_fields import (
    PANEL,
    AllowApi,
    AllowEndpoint,
    AllowMethod,
    AllowModel,
    AllowNetwork,
    ExpiresAt,
    IdleTimeout,
    MaxRequests,
    Name,
    NotBefore,
    changed_expiry,
    new_expiry,
    scope_fields,
    seconds,
    validity_fields,
)
from llm_proxy.cli.manage_token_shown import show, show_list, show_new
from llm_proxy.errors import LLMProxyError

if TYPE_CHECKING:
    from llm_proxy.manage.client import ManagementClient
    from llm_proxy.manage.objects import Project, Token

app = typer.Typer(
    help="Tokens: what clients use instead of the upstream keys.", no_args_is_help=True
)

TokenId = Annotated[
    str,
    typer.Argument(metavar="ID|TOKEN", help="Id of the token, or the token itself (never sent)."),
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
        str | None,
        typer.Option(
            "--duration",
            metavar="24h|30m|7d",
            help="How long it lives, 24h unless given; a bare number is minutes.",
        ),
    ] = None,
    expires_at: ExpiresAt = None,
    not_before: NotBefore = None,
    idle_timeout: IdleTimeout = None,
    max_requests: MaxRequests = None,
    rate_limit: RateLimit = None,
    rate_burst: RateBurst = None,
    max_concurrent: MaxConcurrent = None,
    name: Name = None,
    allow_api: AllowApi = None,
    allow_endpoint: AllowEndpoint = None,
    allow_method: AllowMethod = None,
    allow_model: AllowModel = None,
    allow_network: AllowNetwork = None,
    base_url: BaseUrl = None,
    token: ManagementToken = None,
    as_json: AsJSON = False,
) -> None:
    """Make a token and print it: the only time it is shown.

    Example: TOKEN=$(llm-proxy manage token generate --duration 7d)

    Example: llm-proxy manage token generate --rate-limit 60/min --allow-model 'gpt-4*'
    """
    fields = new_expiry(duration, expires_at) | validity_fields(not_before, idle_timeout)
    fields |= limit_fields(rate_limit, rate_burst, max_concurrent)
    fields |= scope_fields(
        apis=allow_api,
        endpoints=allow_endpoint,
        methods=allow_method,
        models=allow_model,
        networks=allow_network,
    )
    if max_requests:
        fields["max_requests"] = max_requests
    if name is not None:
        fields["name"] = name
    with connect(base_url, token) as client:
        fields["project_id"] = project_id or _choose_project(client)
        show_new(client.create_token(fields), as_json=as_json)


@app.command("list")
def list_tokens(
    *,
    project_id: Annotated[
        str | None, typer.Option("--project-id", metavar="ID", help="Of this project only.")
    ] = None,
    active_only: Annotated[
        bool, typer.Option("--active-only", help="Those that work now.")
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
    show_list(tokens)
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
    """Show one token, by its id or by the token itself.

    Example: llm-proxy manage token get "$TOKEN" --json
    """
    with connect(base_url, token) as client:
        show(_find(client, token_id), as_json=as_json)


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
    expires_at: ExpiresAt = None,
    not_before: NotBefore = None,
    idle_timeout: IdleTimeout = None,
    rate_limit: RateLimit = None,
    rate_burst: RateBurst = None,
    max_concurrent: MaxConcurrent = None,
    allow_api: AllowApi = None,
    allow_endpoint: AllowEndpoint = None,
    allow_method: AllowMethod = None,
    allow_model: AllowModel = None,
    allow_network: AllowNetwork = None,
    no_scope: Annotated[
        bool,
        typer.Option(
            "--no-scope", rich_help_panel=PANEL, help="Lift all that --allow options narrowed."
        ),
    ] = False,
    active: Annotated[
        bool | None,
        typer.Option(
            "--active/--inactive",
            rich_help_panel="State",
            help="Let it work again, or revoke it.",
        ),
    ] = None,
    cancel_running: CancelRunning = False,
    base_url: BaseUrl = None,
    token: ManagementToken = None,
    as_json: AsJSON = False,
) -> None:
    """Change a token; what isn't named stays.

    Example: llm-proxy manage token update ID --duration 30d --max-requests 0

    Example: llm-proxy manage token update ID --rate-limit 10/s --allow-network any
    """
    fields = changed_expiry(duration, expires_at) | validity_fields(not_before, idle_timeout)
    fields |= limit_fields(rate_limit, rate_burst, max_concurrent)
    fields |= scope_fields(
        apis=allow_api,
        endpoints=allow_endpoint,
        methods=allow_method,
        models=allow_model,
        networks=allow_network,
    )
    if no_scope and "scope" in fields:
        raise typer.BadParameter("name either --no-scope or --allow options")
    if no_scope:
        fields["scope"] = None
    if cancel_running and active is not False:
        raise typer.BadParameter("--cancel-running goes with --inactive")
    if cancel_running:
        fields["cancel_running"] = True
    given = {"name": name, "max_requests": max_requests, "is_active": active}
    fields |= {field: value for field, value in given.items() if value is not None}
    if not fields:
        raise typer.BadParameter("nothing to update: name at least one option, like --duration")
    with connect(base_url, token) as client:
        show(client.update_token(_id_of(client, token_id), fields), as_json=as_json)


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
    cancel_running: CancelRunning = False,
    yes: Yes = False,
    base_url: BaseUrl = None,
    token: ManagementToken = None,
    as_json: AsJSON = False,
) -> None:
    """Stop a token from working, at once; or every token of a project.

    Example: llm-proxy manage token revoke ID --cancel-running

    Example: llm-proxy manage token revoke --project-id ID --yes
    """
    if (token_id is None) == (project_id is None):
        raise typer.BadParameter("name either a token or --project-id")
    with connect(base_url, token) as client:
        if project_id is not None:
            confirm(f"Revoke every token of project {project_id}?", yes=yes)
            result = client.revoke_project_tokens(project_id, cancel_running=cancel_running)
            tell(f"{result.revoked_count} of {result.total_tokens} tokens revoked now.")
            if as_json:
                print_json(result)
            return
        found = _id_of(client, token_id or "")
        confirm(f"Revoke token {found}?", yes=yes)
        client.revoke_token(found, cancel_running=cancel_running)
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
    """Replace a token by a new secret with the same limits and counters, and print it once.

    Example: TOKEN=$(llm-proxy manage token rotate ID --grace 1h)
    """
    grace_s = round(seconds(grace, "--grace"))
    with connect(base_url, token) as client:
        rotated = client.rotate_token(_id_of(client, token_id), grace_s=grace_s)
    show_new(rotated, as_json=as_json)


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
