"""`llm-proxy manage project`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llm_proxy.cli.manage_access import (
    AsJSON,
    BaseUrl,
    ManagementToken,
    Yes,
    ask_secret,
    confirm,
    connect,
    print_json,
    read_secret_line,
    tell,
)
from llm_proxy.cli.manage_limits import (
    CancelRunning,
    MaxConcurrent,
    RateBurst,
    RateLimit,
    limit_fields,
    shown_limits,
)

if TYPE_CHECKING:
    from llm_proxy.manage.objects import Project

app = typer.Typer(
    help="Projects: each holds the upstream keys that its tokens stand for.", no_args_is_help=True
)

ProjectId = Annotated[str, typer.Argument(metavar="ID", help="Id of the project.")]
ApiKey = Annotated[
    str | None,
    typer.Option("--api-key", "--openai-key", metavar="KEY|-", help="Upstream key, - for stdin."),
]
Api = Annotated[
    str | None,
    typer.Option("--api", metavar="NAME", help="The api of --api-key; else the default api."),
]
ApiKeyFor = Annotated[
    list[str] | None,
    typer.Option(
        "--api-key-for", metavar="API=KEY", help="Key for a further api; may be repeated."
    ),
]
Description = Annotated[
    str | None, typer.Option("--description", metavar="TEXT", help="What it is for.")
]
Metadata = Annotated[
    str | None,
    typer.Option("--metadata", metavar="JSON", help="A JSON object, kept with the project."),
]


@app.command("list")
def list_projects(
    *, base_url: BaseUrl = None, token: ManagementToken = None, as_json: AsJSON = False
) -> None:
    """List all projects."""
    with connect(base_url, token) as client:
        projects = client.list_projects()
    if as_json:
        print_json(projects)
        return
    from llm_proxy.manage.tables import print_table

    rows = [(p.id, p.name, p.api_key or ", ".join(p.api_keys), p.is_active) for p in projects]
    print_table(("Id", "Name", "Key", "Active"), rows)
    if not projects:
        tell("No projects yet. Create one with: llm-proxy manage project create --name NAME")


@app.command("get")
def get_project(
    project_id: ProjectId,
    *,
    base_url: BaseUrl = None,
    token: ManagementToken = None,
    as_json: AsJSON = False,
) -> None:
    """Show one project."""
    with connect(base_url, token) as client:
        _show(client.get_project(project_id), as_json=as_json)


@app.command("create")
def create_project(
    *,
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="A name nobody has yet.")],
    api_key: ApiKey = None,
    api: Api = None,
    api_key_for: ApiKeyFor = None,
    description: Description = None,
    metadata: Metadata = None,
    rate_limit: RateLimit = None,
    rate_burst: RateBurst = None,
    max_concurrent: MaxConcurrent = None,
    base_url: BaseUrl = None,
    token: ManagementToken = None,
    as_json: AsJSON = False,
) -> None:
    """Create a project. Without a key it is asked for, without echo.

    Example: llm-proxy manage project create --name demo --api-key - < key.txt
    """
    _refuse_two_from_stdin(api_key, token)
    if api_key is None and not api_key_for:
        api_key = ask_secret("Upstream API key", "--api-key").reveal()
    fields = _fields(api_key, api, api_key_for) | {"name": name}
    fields |= _extras(description, metadata)
    fields |= limit_fields(rate_limit, rate_burst, max_concurrent)
    with connect(base_url, token) as client:
        project = client.create_project(fields)
    tell(
        "Project created. Make a token with: "
        f"llm-proxy manage token generate --project-id {project.id}"
    )
    _show(project, as_json=as_json)


@app.command("update")
def update_project(
    project_id: ProjectId,
    *,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="A new name nobody has yet.")
    ] = None,
    api_key: ApiKey = None,
    api: Api = None,
    api_key_for: ApiKeyFor = None,
    remove_key: Annotated[
        list[str] | None,
        typer.Option("--remove-key", metavar="API", help="Forget the key of an api."),
    ] = None,
    description: Description = None,
    metadata: Metadata = None,
    rate_limit: RateLimit = None,
    rate_burst: RateBurst = None,
    max_concurrent: MaxConcurrent = None,
    base_url: BaseUrl = None,
    token: ManagementToken = None,
    as_json: AsJSON = False,
) -> None:
    """Change a project; what isn't named stays.

    Example: llm-proxy manage project update ID --api-key-for anthropic=sk-ant-…

    Example: llm-proxy manage project update ID --rate-limit 600/min --max-concurrent 50
    """
    _refuse_two_from_stdin(api_key, token)
    fields = _fields(api_key, api, api_key_for, remove_key) | _extras(description, metadata)
    fields |= limit_fields(rate_limit, rate_burst, max_concurrent)
    if name is not None:
        fields["name"] = name
    if not fields:
        raise typer.BadParameter("nothing to update: name at least one option, like --name")
    with connect(base_url, token) as client:
        _show(client.update_project(project_id, fields), as_json=as_json)


@app.command("activate")
def activate_project(
    project_id: ProjectId,
    *,
    base_url: BaseUrl = None,
    token: ManagementToken = None,
    as_json: AsJSON = False,
) -> None:
    """Let the tokens of a project work again."""
    with connect(base_url, token) as client:
        _show(client.update_project(project_id, {"is_active": True}), as_json=as_json)


@app.command("deactivate")
def deactivate_project(
    project_id: ProjectId,
    *,
    revoke_tokens: Annotated[
        bool, typer.Option("--revoke-tokens", help="Revoke its tokens too, for good.")
    ] = False,
    cancel_running: CancelRunning = False,
    base_url: BaseUrl = None,
    token: ManagementToken = None,
    as_json: AsJSON = False,
) -> None:
    """Refuse all requests of a project from now on.

    Example: llm-proxy manage project deactivate ID --cancel-running
    """
    fields: dict[str, Any] = {"is_active": False}
    if revoke_tokens:
        fields["revoke_tokens"] = True
    if cancel_running:
        fields["cancel_running"] = True
    with connect(base_url, token) as client:
        _show(client.update_project(project_id, fields), as_json=as_json)


@app.command("delete")
def delete_project(
    project_id: ProjectId,
    *,
    force: Annotated[
        bool, typer.Option("--force", help="Even while it has active tokens.")
    ] = False,
    cancel_running: CancelRunning = False,
    yes: Yes = False,
    base_url: BaseUrl = None,
    token: ManagementToken = None,
    as_json: AsJSON = False,
) -> None:
    """Delete a project with its keys and tokens."""
    with connect(base_url, token) as client:
        confirm(f"Delete project {project_id} with its keys and tokens?", yes=yes)
        client.delete_project(project_id, force=force, cancel_running=cancel_running)
    tell("Project deleted.")
    if as_json:
        print_json({"id": project_id, "deleted": True})


def _fields(
    api_key: str | None,
    api: str | None,
    api_key_for: list[str] | None,
    remove_key: list[str] | None = None,
) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if api_key is not None:
        fields["api_key"] = read_secret_line("--api-key").reveal() if api_key == "-" else api_key
    if api is not None:
        fields["api"] = api
    keys = dict(map(_split_key, api_key_for or ()))
    keys |= dict.fromkeys(remove_key or ())
    return fields | ({"api_keys": keys} if keys else {})


def _split_key(text: str) -> tuple[str, str | None]:
    api, equals, key = text.partition("=")
    if not (api and equals and key):
        raise typer.BadParameter("--api-key-for must be written API=KEY, like anthropic=sk-ant-…")
    return api, key


def _extras(description: str | None, metadata: str | None) -> dict[str, Any]:
    fields: dict[str, Any] = {} if description is None else {"description": description}
    if metadata is None:
        return fields
    import msgspec  # stricter than json: NaN, or half a character, would become something else

    try:
        document = msgspec.json.decode(metadata)
    except (msgspec.MsgspecError, ValueError, RecursionError) as exc:
        raise typer.BadParameter(f"--metadata isn't JSON: {exc}") from exc
    if not isinstance(document, dict):
        raise typer.BadParameter('--metadata must be a JSON object, like {"team": "search"}')
    return fields | {"metadata": document}


def _refuse_two_from_stdin(api_key: str | None, token: str | None) -> None:
    if api_key == "-" and token == "-":
        raise typer.BadParameter("only one of --api-key and --management-token can read stdin")


def _show(project: Project, *, as_json: bool) -> None:
    if as_json:
        print_json(project)
        return
    from llm_proxy.manage.tables import print_details

    keys = ", ".join(f"{api} {masked}" for api, masked in project.api_keys.items())
    print_details(
        [
            ("Id", project.id),
            ("Name", project.name),
            ("Keys", keys),
            ("Description", project.description),
            ("Metadata", json.dumps(project.metadata, ensure_ascii=False)),
            *shown_limits(project),
            ("Active", project.is_active),
            ("Deactivated", project.deactivated_at),
            ("Created", project.created_at),
            ("Updated", project.updated_at),
        ]
    )
