"""`llm-proxy config`: is the configuration right, and what is it in effect?"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llm_proxy.errors import ConfigError

if TYPE_CHECKING:
    from llm_proxy.providers import Providers
    from llm_proxy.settings import Resolved

app = typer.Typer(help="Check the configuration, or show the one in effect.", no_args_is_help=True)

ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "-c", "--config", metavar="FILE", help="Provider YAML instead of API_CONFIG_PATH."
    ),
]
EnvFile = Annotated[
    Path | None,
    typer.Option("--env", metavar="FILE", help="Env file instead of the home's llm-proxy.env."),
]
AsJSON = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@app.command()
def validate(
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="Provider YAML, as --config.")
    ] = None,
    config: ConfigFile = None,
    env: EnvFile = None,
    as_json: AsJSON = False,
) -> None:
    """Check the settings and the provider file; exit 1 and name the line when something is wrong.

    Example: llm-proxy config validate providers.yaml
    """
    from llm_proxy.settings import resolve_settings

    if file is not None and config is not None and file != config:
        raise typer.BadParameter("give the file once, as FILE or with --config")
    try:
        resolved = resolve_settings({"config_path": file or config}, env_file=env)
        providers, warnings = _load(resolved)
    except ConfigError as exc:
        if not as_json:
            raise
        print(json.dumps({"valid": False, "error": str(exc), "warnings": []}))
        raise typer.Exit(1) from exc
    name = str(resolved.settings.config_path or "the built-in provider file")
    if as_json:
        found = {"valid": True, "file": name, "apis": list(providers.apis), "warnings": warnings}
        print(json.dumps(found))
        return
    _warn(warnings)
    apis = ", ".join(
        f"{api} (default)" if api == providers.default_api else api for api in providers.apis
    )
    print(f"{name} and the settings are valid; apis: {apis}")


@app.command()
def show(config: ConfigFile = None, env: EnvFile = None, as_json: AsJSON = False) -> None:
    """Show every setting with its source, and the provider file in effect; secrets are masked.

    What it prints of the apis is itself a valid provider file.
    """
    from llm_proxy.provider_file import provider_text
    from llm_proxy.settings import SETTINGS, resolve_settings

    resolved = resolve_settings({"config_path": config}, env_file=env)
    providers, warnings = _load(resolved)
    text = provider_text(providers)
    if as_json:
        print(json.dumps(_document(resolved, text, warnings), indent=2))
        return
    _warn(warnings)
    rows = [
        (setting.env, _shown(resolved, setting.field), resolved.sources[setting.env])
        for setting in SETTINGS
    ]
    _print_table(rows)
    print(f"\n# Providers: {resolved.settings.config_path or 'built in'}\n{text}", end="")


def _load(resolved: Resolved) -> tuple[Providers, list[str]]:
    from llm_proxy.server.configuration import check_configuration

    settings = resolved.settings
    configuration, warnings = check_configuration(settings)
    token = settings.management_token
    if token is not None and len(token.reveal()) < 16:
        warnings.append("MANAGEMENT_TOKEN is short and could be guessed; use 16 characters or more")
    return configuration.providers, warnings


def _shown(resolved: Resolved, field: str) -> str:
    from llm_proxy.settings import SETTINGS

    if field == "home":
        return str(resolved.settings.home.path)
    setting = next(setting for setting in SETTINGS if setting.field == field)
    value = getattr(resolved.settings, field)
    return "" if value is None else setting.write(value)


def _document(resolved: Resolved, providers: str, warnings: list[str]) -> dict[str, Any]:
    import yaml

    from llm_proxy.settings import SETTINGS

    settings = {
        setting.env: {
            "value": _shown(resolved, setting.field) or None,
            "source": resolved.sources[setting.env],
        }
        for setting in SETTINGS
    }
    return {"settings": settings, "providers": yaml.safe_load(providers), "warnings": warnings}


def _warn(warnings: Iterable[str]) -> None:
    for warning in warnings:
        print(f"Warning: {warning}", file=sys.stderr)


def _print_table(rows: list[tuple[str, str, str]]) -> None:
    heads = ("Setting", "Value", "Source")
    if not sys.stdout.isatty():
        widths = [max(len(row[column]) for row in (heads, *rows)) for column in (0, 1)]
        for name, value, source in (heads, *rows):
            print(f"{name:<{widths[0]}}  {value:<{widths[1]}}  {source}")
        return
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for head in heads:
        table.add_column(head, overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console().print(table)
