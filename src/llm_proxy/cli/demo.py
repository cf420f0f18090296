"""`llm-proxy demo`: everything at once, with nothing to configure and nothing left behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

if TYPE_CHECKING:
    from llm_proxy.cli.demo_servers import DemoServers
    from llm_proxy.manage.client import ManagementClient

_PACE: Final = 40.0  # tokens a second, so that the stream is seen to be one
_SHOWN_WITHIN_S: Final = 10.0  # counters and records are written in batches
_QUESTION: Final = "What does a proxy in between change?"
_UPSTREAM_KEY: Final = "sk-demo-upstream-key-000000000000"


def demo(
    once: Annotated[
        bool, typer.Option("--once", help="Exit after the round trip instead of staying up.")
    ] = False,
) -> None:
    """Show llm-proxy at work on an embedded upstream: no key, no configuration, no cost.

    It starts a mock of the OpenAI and Anthropic APIs and a server on free
    ports, with a temporary home; makes a project and a token; streams a chat
    through the proxy; shows what was recorded. It stays up for you to try it
    until Ctrl-C, and leaves nothing behind.

    Example: llm-proxy demo --once
    """
    from llm_proxy.cli.demo_servers import demo_servers

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that it too cleans up
    with tempfile.TemporaryDirectory(prefix="llm-proxy-demo-") as folder:
        with demo_servers(Path(folder), tokens_per_second=_PACE) as servers:
            _show(servers)
            if not once:
                _stay_up()
        print("Everything is stopped, and the temporary home is removed.")


def _show(servers: DemoServers) -> None:
    from llm_proxy.home import Home
    from llm_proxy.manage.client import ManagementClient
    from llm_proxy.secrets import Secret

    _step(f"An upstream (mock of OpenAI and Anthropic) runs at {servers.mock_url}")
    _step(f"llm-proxy runs at {servers.proxy_url}")
    management_token = Home(servers.home).read_secret("management_token") or Secret("")
    with ManagementClient(servers.proxy_url, management_token) as client:
        keys = {"openai": _UPSTREAM_KEY, "anthropic": _UPSTREAM_KEY}
        project = client.create_project({"name": "demo", "api_keys": keys})
        _step(f"Project {project.name!r} keeps the real keys: {project.api_keys['openai']}")
        made = client.create_token(
            {"project_id": project.id, "duration_minutes": 60, "max_requests": 1000}
        )
        _step(f"A withering token, good for an hour and 1000 requests: {made.token}")
        _stream_chat(servers.proxy_url, made.token)
        _show_counters(client, made.id)
    _show_record(servers.event_log)
    _show_latency(servers, made.token)
    _show_next(servers.proxy_url, made.token)


def _stream_chat(url: str, token: str) -> None:
    import httpx

    from llm_proxy.errors import LLMProxyError

    _step("A streaming chat with that token, word by word as it arrives:")
    print(f"\n    you  {_QUESTION}\n    llm  ", end="", flush=True)
    body = {
        "model": "gpt-4o-mini",
        "stream": True,
        "stream_options": {"include_usage": True},
        "messages": [{"role": "user", "content": _QUESTION}],
    }
    headers = {"Authorization": f"Bearer {token}"}
    with (
        httpx.Client(trust_env=False, timeout=30) as http,
        http.stream("POST", f"{url}/v1/chat/completions", json=body, headers=headers) as answer,
    ):
        if answer.status_code != 200:
            answer.read()
            raise LLMProxyError(f"the chat was answered {answer.status_code}: {answer.text}")
        for line in answer.iter_lines():
            print(_delta(line), end="", flush=True)
    print("\n")


def _delta(line: str) -> str:
    if not line.startswith("data: {"):
        return ""
    choices = json.loads(line.removeprefix("data: "))["choices"]
    return str(choices[0]["delta"].get("content") or "") if choices else ""


def _show_counters(client: ManagementClient, token_id: str) -> None:
    deadline = time.monotonic() + _SHOWN_WITHIN_S
    token = client.get_token(token_id)
    while not token.request_count and time.monotonic() < deadline:
        time.sleep(0.05)
        token = client.get_token(token_id)
    used = f"{token.request_count} of {token.max_requests} requests used"
    _step(f"The token {token.token} now: {used}, expires {token.expires_at:%H:%M} UTC")


def _show_record(event_log: Path) -> None:
    record = _first_record(event_log)
    metadata = record["metadata"]
    _step("What was recorded of it, off the request's path:")
    _indented("request", f"{record['method']} {record['endpoint']} → {record['status_code']}")
    _indented("model", metadata["model"])
    _indented("tokens", f"{metadata['prompt_tokens']} + {metadata['completion_tokens']}")
    _indented("first byte", f"{record['ttft_ms']:.1f} ms, end {record['duration_ms']:.0f} ms")


def _first_record(event_log: Path) -> dict[str, Any]:
    from llm_proxy.errors import LLMProxyError

    deadline = time.monotonic() + _SHOWN_WITHIN_S
    while time.monotonic() < deadline:
        text = event_log.read_text() if event_log.exists() else ""
        if "\n" in text:
            record: dict[str, Any] = json.loads(text.partition("\n")[0])
            return record
        time.sleep(0.02)
    raise LLMProxyError(f"no record was written within {_SHOWN_WITHIN_S:g} s")


def _show_latency(servers: DemoServers, token: str) -> None:
    from llm_proxy.cli.demo_latency import PAIRS, measure_added_latency

    latency = measure_added_latency(servers.mock_url, servers.proxy_url, token)
    _step(
        f"The proxy adds {latency.added_us:.0f} µs to a request "
        f"({latency.direct_us:.0f} direct, {latency.proxied_us:.0f} through it; "
        f"medians of {PAIRS} pairs)"
    )


def _show_next(url: str, token: str) -> None:
    body = '{"model":"gpt-4o-mini","messages":[{"role":"user","content":"Hello"}]}'
    print(f"""
Try it yourself:

  curl {url}/v1/chat/completions \\
    -H 'Authorization: Bearer {token}' \\
    -H 'Content-Type: application/json' \\
    -d '{body}'

  PROXY_URL={url} PROXY_TOKEN={token} \\
    llm-proxy openai chat

  from openai import OpenAI
  client = OpenAI(base_url="{url}/v1", api_key="{token}")
  print(client.responses.create(model="gpt-4o-mini", input="Hello").output_text)

  from anthropic import Anthropic
  client = Anthropic(base_url="{url}/anthropic", api_key="{token}")
  print(client.messages.create(model="claude-sonnet-5", max_tokens=99,
        messages=[{{"role": "user", "content": "Hello"}}]).content[0].text)
""")


def _stay_up() -> None:
    with contextlib.suppress(KeyboardInterrupt):
        print("Ctrl-C ends it.", flush=True)
        while True:
            signal.pause()


def _step(text: str) -> None:
    mark = "\33[32m✓\33[0m" if _has_colours() else "✓"
    print(f"{mark} {text}", flush=True)


def _indented(name: str, value: object) -> None:
    print(f"    {name:<11} {value}")


def _has_colours() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")
