"""`llm-proxy mock`: a local upstream that speaks the OpenAI and Anthropic APIs."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from llm_proxy.benchmark.mock_options import Freeze, MockOptions
    from llm_proxy.settings import Address

_EXAMPLE = '{"model":"gpt-4o-mini","messages":[{"role":"user","content":"Hello"}]}'


def mock(
    addr: Annotated[
        str, typer.Option("--addr", metavar="HOST:PORT", help="Where to listen; port 0: any free.")
    ] = "127.0.0.1:8089",
    tokens_per_second: Annotated[
        float, typer.Option(min=0, help="Pace of streams; 0: as fast as possible.")
    ] = 0.0,
    latency: Annotated[
        str, typer.Option(metavar="DURATION", help="Wait before the head of an answer: 200ms, 2s.")
    ] = "0s",
    jitter: Annotated[
        str, typer.Option(metavar="DURATION", help="Wait up to so much longer, at random.")
    ] = "0s",
    freeze: Annotated[
        str | None,
        typer.Option(
            metavar="EVERY:FOR", help="Answer nothing for a while, time and again: 10s:1s."
        ),
    ] = None,
    api_key: Annotated[
        str | None,
        typer.Option(metavar="KEY|-", help="Accept only this key (-: read it from stdin)."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one line of JSON once it listens.")
    ] = False,
) -> None:
    """Run a local upstream that speaks the OpenAI and Anthropic APIs; Ctrl-C ends it.

    It answers without a model, at no cost, and the same request always gets the same bytes.

    \b
    Request headers ask for trouble:
      X-Mock-Status: 429        answer with this status, in the API's error format
      X-Mock-Retry-After: 3     and with this Retry-After
      X-Mock-Delay: 2s          wait before the head, instead of --latency
      X-Mock-Cut: 5             close after 5 events of a stream or 5 bytes of
                                another body; `head` closes before the head
      X-Mock-Encoding: gzip     compress the body: gzip, br or deflate
      X-Mock-Tokens: 100        the length of the answer
      X-Mock-Stall: 5:300ms     pause a stream once, after 5 events
      X-Mock-Corrupt: 5         another byte within event 5 of a stream, or as
                                byte 5 of another body

    Models named no-such-… don't exist.

    Example: llm-proxy mock --tokens-per-second 50
    """
    address = _parse_address(addr)
    options = _options(
        tokens_per_second=tokens_per_second,
        latency_s=_seconds(latency, "--latency"),
        jitter_s=_seconds(jitter, "--jitter"),
        freeze=freeze,
        api_key=api_key,
    )
    import uvloop

    received = uvloop.run(_serve(address, options, as_json=as_json))
    if received == signal.SIGINT:
        raise typer.Exit(128 + signal.SIGINT)


def _parse_address(text: str) -> Address:
    from llm_proxy.address import parse_address

    try:
        return parse_address(text)
    except ValueError as exc:
        raise typer.BadParameter(f"must be {exc}, not {text!r}", param_hint="--addr") from exc


def _options(
    *,
    tokens_per_second: float,
    latency_s: float,
    jitter_s: float,
    freeze: str | None,
    api_key: str | None,
) -> MockOptions:
    from llm_proxy.benchmark.mock_options import MockOptions
    from llm_proxy.errors import ConfigError
    from llm_proxy.secrets import Secret

    if api_key == "-":
        api_key = sys.stdin.readline().strip()
    try:
        return MockOptions(
            tokens_per_second=tokens_per_second,
            latency_s=latency_s,
            jitter_s=jitter_s,
            freeze=None if freeze is None else _parse_freeze(freeze),
            api_key=None if api_key is None else Secret(api_key),
        )
    except ConfigError as exc:
        raise typer.BadParameter(str(exc)) from exc


def _parse_freeze(text: str) -> Freeze:
    from llm_proxy.benchmark.mock_options import Freeze

    every, colon, length = text.partition(":")
    if not colon:
        message = f"must be how often and how long, such as 10s:1s, not {text!r}"
        raise typer.BadParameter(message, param_hint="--freeze")
    return Freeze(every_s=_seconds(every, "--freeze"), for_s=_seconds(length, "--freeze"))


def _seconds(text: str, option: str) -> float:
    from llm_proxy.quantities import parse_duration

    try:
        return parse_duration(text)
    except ValueError as exc:
        raise typer.BadParameter(str(exc), param_hint=option) from exc


async def _serve(address: Address, options: MockOptions, *, as_json: bool) -> int:
    """Until a signal asks to stop; gives that signal."""
    from llm_proxy.benchmark.mock_upstream import start_mock

    loop = asyncio.get_running_loop()
    stop: asyncio.Future[int] = loop.create_future()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, _note, stop, number)
    server = await start_mock(address.host, address.port, options=options)
    try:
        _announce(server.address, has_key=options.api_key is not None, as_json=as_json)
        return await stop
    finally:
        await server.close()


def _note(stop: asyncio.Future[int], number: int) -> None:
    if not stop.done():
        stop.set_result(number)


def _announce(address: str, *, has_key: bool, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"address": address, "pid": os.getpid()}), flush=True)
    key = "$MOCK_API_KEY" if has_key else "any-key"
    keys = "only the given key is accepted" if has_key else "any key is accepted"
    print(
        f"The mock listens on http://{address} ({keys}). Ctrl-C ends it. Try:\n"
        f"  curl http://{address}/v1/chat/completions -H 'Content-Type: application/json' \\\n"
        f"    -H \"Authorization: Bearer {key}\" -d '{_EXAMPLE}'",
        file=sys.stderr,
        flush=True,
    )
