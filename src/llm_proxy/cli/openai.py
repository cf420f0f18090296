"""`llm-proxy openai`: what a client can do with a token."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from llm_proxy.cli.openai_access import Api, BaseUrl, Token, find_target

app = typer.Typer(
    help="Talk with a model through the proxy, and list the models there are.",
    no_args_is_help=True,
)


def _check_text(value: str | None) -> str | None:
    if value is not None and not value.isprintable():
        try:
            value.encode()
        except UnicodeEncodeError as exc:  # other bytes of arguments come as surrogates
            raise typer.BadParameter(f"must be UTF-8, and isn't at character {exc.start}") from exc
    return value


_DEFAULT_MODELS = {"openai": "gpt-4.1-mini", "anthropic": "claude-haiku-4-5"}


@app.command()
def chat(
    *,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            envvar="MODEL",
            metavar="NAME",
            callback=_check_text,
            help=f"Whom to ask; else {_DEFAULT_MODELS['openai']}, "
            f"or {_DEFAULT_MODELS['anthropic']} of Anthropic.",
        ),
    ] = None,
    system: Annotated[
        str | None,
        typer.Option(
            "--system",
            "-s",
            envvar="SYSTEM_PROMPT",
            metavar="TEXT",
            callback=_check_text,
            help="System prompt; else none is sent.",
        ),
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(
            "--temperature",
            envvar="TEMPERATURE",
            metavar="T",
            min=0,
            max=2,
            help="How freely words are chosen; else as the model does by itself.",
        ),
    ] = None,
    max_tokens: Annotated[
        int,
        typer.Option(
            "--max-tokens",
            envvar="MAX_TOKENS",
            metavar="N",
            min=0,
            help="Longest answer; 0: no limit (4096 of Anthropic, which wants one).",
        ),
    ] = 0,
    stream: Annotated[
        bool,
        typer.Option(
            "--stream/--no-stream", envvar="USE_STREAMING", help="Show answers as they are written."
        ),
    ] = True,
    api: Api = "openai",
    token: Token = None,
    base_url: BaseUrl = None,
    history: Annotated[
        bool,
        typer.Option(
            "--history/--no-history",
            help="Keep what is typed in the home folder, for the next time.",
        ),
    ] = True,
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose", "-v", envvar="VERBOSE", help="Show requests and answers as JSON, too."
        ),
    ] = False,
) -> None:
    """Chat with a model; in a pipe, answer one question.

    On a terminal /help lists the commands, Ctrl-C stops an answer, Ctrl-D
    leaves. In a pipe stdin is the question, and stdout gets the answer only.

    Example: PROXY_TOKEN=sk-… llm-proxy openai chat

    Example: git diff | llm-proxy openai chat --system 'Review this.'
    """
    target = find_target(api, base_url, token)

    from llm_proxy.chat.conversation import Conversation
    from llm_proxy.chat.session import Manner
    from llm_proxy.cli import openai_session

    conversation = Conversation(
        model=(model or "").strip() or _DEFAULT_MODELS[api], system=system or None
    )
    manner = Manner(api=api, temperature=temperature, max_tokens=max_tokens or None, streams=stream)
    work = openai_session.Work(
        target=target, conversation=conversation, manner=manner, is_verbose=verbose
    )
    if sys.stdin.isatty():
        raise typer.Exit(openai_session.talk(work, keeps_history=history))
    openai_session.answer_stdin(work)


@app.command()
def models(
    *,
    api: Api = "openai",
    token: Token = None,
    base_url: BaseUrl = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """List the models that the token's upstream has.

    Example: llm-proxy openai models --api anthropic
    """
    target = find_target(api, base_url, token)

    import asyncio

    from llm_proxy.chat.models import list_models
    from llm_proxy.cli.manage_access import print_json, tell
    from llm_proxy.manage.tables import print_table

    found = asyncio.run(list_models(target))
    if as_json:
        print_json(found)
        return
    by_name = api == "anthropic"
    rows = [(m.id, m.name if by_name else m.owner, m.created_at) for m in found]
    print_table(["model", "name" if by_name else "owner", "created"], rows)
    if not found:
        tell("The upstream lists no models.")
