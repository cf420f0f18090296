"""`llm-proxy setup`: from nothing to a configuration, a first project and its token."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from llm_proxy.secrets import Secret
    from llm_proxy.server.installation import FirstProject, Issued
    from llm_proxy.settings import Address, Settings, UnixAddress

_LONGEST_LIFE = 365 * 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answers:
    """What the flags or the person said, as text."""

    openai_key: str
    anthropic_key: str
    addr: str
    project: str
    duration: str
    max_requests: int | None
    skips_project: bool


def setup(
    openai_key: Annotated[
        str | None,
        typer.Option(metavar="KEY|-", envvar="OPENAI_API_KEY", help="Key of OpenAI; - for stdin."),
    ] = None,
    anthropic_key: Annotated[
        str | None,
        typer.Option(
            metavar="KEY|-", envvar="ANTHROPIC_API_KEY", help="Key of Anthropic; - for stdin."
        ),
    ] = None,
    addr: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Where the server will listen; else 127.0.0.1:8080.",
        ),
    ] = None,
    project: Annotated[
        str, typer.Option(metavar="NAME", help="Name of the first project.")
    ] = "default",
    duration: Annotated[
        str,
        typer.Option(
            metavar="24h|30m|7d", help="How long its token lives; a bare number is minutes."
        ),
    ] = "24h",
    max_requests: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Requests that the token is good for; else no cap."),
    ] = None,
    skip_project: Annotated[
        bool, typer.Option("--skip-project", help="Write the files only.")
    ] = False,
    force: Annotated[
        bool,
        typer.Option("--force", help="Replace existing files; their secrets and settings stay."),
    ] = False,
    non_interactive: Annotated[
        bool, typer.Option("--non-interactive", help="Ask nothing; so it is without a terminal.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Write a configuration, and create the first project and token.

    Starts nothing. Asks on a terminal, not in scripts.

    Example: llm-proxy setup --non-interactive --openai-key - < key.txt
    """
    from llm_proxy.server.installation import install, refuse_existing_files
    from llm_proxy.settings import load_settings

    settings = load_settings({"listen_addr": addr})
    if not force:
        refuse_existing_files(settings.home)
    answers = _Answers(
        openai_key=_from_stdin(openai_key),
        anthropic_key=_from_stdin(anthropic_key),
        addr=str(settings.listen_addr),
        project=project.strip(),
        duration=duration,
        max_requests=max_requests,
        skips_project=skip_project,
    )
    asks = not non_interactive and sys.stdin.isatty() and "-" not in (openai_key, anthropic_key)
    if asks:
        answers = _ask(answers)
    settings = load_settings({"listen_addr": answers.addr})
    first = None if answers.skips_project else _first_project(answers)
    if asks:
        _confirm(settings, answers)
    default_api = "openai" if answers.openai_key or not answers.anthropic_key else "anthropic"
    issued = install(settings, default_api=default_api, project=first, now=datetime.now(UTC))
    if as_json:
        print(json.dumps(_document(settings, answers, issued), indent=2))
    else:
        _report(settings, answers, issued, default_api)


def _from_stdin(key: str | None) -> str:
    return sys.stdin.readline().strip() if key == "-" else (key or "").strip()


def _ask(answers: _Answers) -> _Answers:
    print("Keys aren't shown as you type them; Enter skips an api.", file=sys.stderr)
    openai_key = _ask_key("OpenAI API key", answers.openai_key)
    anthropic_key = _ask_key("Anthropic API key", answers.anthropic_key)
    addr = _prompt("Listen on", answers.addr, _checked_address)
    answers = replace(answers, openai_key=openai_key, anthropic_key=anthropic_key, addr=addr)
    if answers.skips_project:
        return answers
    return replace(
        answers,
        project=_prompt("Name of the first project", answers.project, _checked_name),
        duration=_prompt("Its token is good for", answers.duration, _checked_duration),
    )


def _ask_key(label: str, known: str) -> str:
    hint = " [the one in the environment]" if known else ""
    while True:
        answer = typer.prompt(
            label + hint, default="", hide_input=True, show_default=False, err=True
        ).strip()
        if not answer:
            return known
        try:
            _checked_key(label, answer)
        except typer.BadParameter as exc:  # a hidden prompt would hide the reason, too
            print(f"Error: {exc}", file=sys.stderr)
        else:
            return str(answer)


def _prompt(label: str, default: str, check: Callable[[str], object]) -> str:
    """Asks again until the check passes."""

    def read(text: str) -> str:
        check(text.strip())
        return text.strip()

    answer: str = typer.prompt(label, default=default, value_proc=read, err=True)
    return answer


def _checked_address(text: str) -> Address | UnixAddress:
    from llm_proxy.address import parse_listen_address

    try:
        return parse_listen_address(text)
    except ValueError as exc:
        raise typer.BadParameter(f"the address must be {exc}, not {text!r}") from exc


def _checked_name(text: str) -> str:
    from llm_proxy.errors import Refusal
    from llm_proxy.server.control.rules import project_name

    try:
        return project_name(text)
    except Refusal as exc:
        raise typer.BadParameter(f"of the project: {exc}") from exc


def _checked_duration(text: str) -> float:
    from llm_proxy.quantities import parse_duration

    try:
        seconds = parse_duration(text, bare_unit="m")
    except ValueError as exc:
        raise typer.BadParameter(str(exc)) from exc
    if not 60 <= seconds <= _LONGEST_LIFE:
        raise typer.BadParameter(f"a token lives from 1m to 365d, not {text!r}")
    return seconds


def _checked_key(label: str, text: str) -> Secret:
    from llm_proxy.errors import Refusal
    from llm_proxy.server.control.rules import upstream_key

    try:
        return upstream_key(label, text)
    except Refusal as exc:
        raise typer.BadParameter(str(exc)) from exc


def _first_project(answers: _Answers) -> FirstProject:
    from llm_proxy.server.installation import FirstProject

    given = {
        "openai": ("the OpenAI key", answers.openai_key),
        "anthropic": ("the Anthropic key", answers.anthropic_key),
    }
    keys = {api: _checked_key(label, text) for api, (label, text) in given.items() if text}
    if not keys:
        raise typer.BadParameter(
            "the first project needs an upstream key: give --openai-key or --anthropic-key "
            "(- reads it from stdin), or --skip-project"
        )
    return FirstProject(
        name=_checked_name(answers.project),
        keys=keys,
        token_lifetime_s=_checked_duration(answers.duration),
        max_requests=answers.max_requests,
    )


def _confirm(settings: Settings, answers: _Answers) -> None:
    project = "" if answers.skips_project else f", project {answers.project!r}"
    print(f"Into {settings.home.path}: llm-proxy.env, providers.yaml{project}.", file=sys.stderr)
    if not typer.confirm("Go ahead?", default=True, err=True):
        print("Nothing was written.", file=sys.stderr)
        raise typer.Exit(1)


def _document(settings: Settings, answers: _Answers, issued: Issued | None) -> dict[str, object]:
    document: dict[str, object] = {
        "home": str(settings.home.path),
        "env_file": str(settings.home.env_file),
        "providers_file": str(settings.home.providers_file),
        "address": str(settings.listen_addr),
        "project": None,
        "token": None,
    }
    if issued is not None:
        document["project"] = {"id": issued.project_id, "name": answers.project}
        document["token"] = {
            "id": issued.token_id,
            "token": issued.token.reveal(),
            "expires_at": issued.expires_at.isoformat(timespec="seconds").replace("+00:00", "Z"),
            "max_requests": answers.max_requests,
        }
    return document


def _report(settings: Settings, answers: _Answers, issued: Issued | None, default_api: str) -> None:
    print(f"Settings   {settings.home.env_file}")
    print(f"Providers  {settings.home.providers_file}")
    if issued is None:
        print("\nNext:\n  llm-proxy server start")
        return
    until = issued.expires_at.strftime("%Y-%m-%d %H:%M UTC")
    where = _curl_target(settings.listen_addr)
    version = " -H 'anthropic-version: 2023-06-01'" if default_api == "anthropic" else ""
    print(f"Project    {answers.project} ({issued.project_id})")
    print(f"\nIts token is shown only this once and expires {until}. Next:")
    print("  llm-proxy server start --daemon")
    print(f"  export PROXY_TOKEN={issued.token.reveal()}")
    print(f'  curl {where}/v1/models -H "Authorization: Bearer $PROXY_TOKEN"{version}')


def _curl_target(address: Address | UnixAddress) -> str:
    from llm_proxy.server.local_server import local_url
    from llm_proxy.settings import Address

    if isinstance(address, Address):
        return local_url(str(address))
    return f"--unix-socket {address.path} http://localhost"
