"""A flood of guessed tokens is no load on the store, and no trouble for those who have one."""

from __future__ import annotations

import asyncio
import socket
import time
from collections import Counter
from collections.abc import Callable

import httpx
import pytest

from llm_proxy.manage.objects import NewToken
from llm_proxy.secrets import new_token as new_secret
from llm_proxy.server.gateway.guesses import PER_ADDRESS
from tests.end_to_end.server_process import ServerProcess

pytestmark = pytest.mark.anyio

GUESSES = 2000
CONNECTIONS = 20


def looked_up(server: ServerProcess) -> float:
    """Look-ups of tokens that found nothing."""
    text = httpx.get(f"{server.url}/metrics", trust_env=False, verify=False).text
    lines = [line for line in text.splitlines() if line.startswith("llm_proxy_token_lookups_total")]
    return sum(float(line.split()[-1]) for line in lines if 'outcome="unknown"' in line)


async def guess(server: ServerProcess, make: Callable[[], str], count: int) -> Counter[int]:
    """Status codes of so many requests, each with another token."""
    host, _, port = server.address.rpartition(":")
    statuses: Counter[int] = Counter()

    async def one() -> None:
        reader, writer = await asyncio.open_connection(host, int(port))
        for _ in range(count // CONNECTIONS):
            line = f"GET /v1/models HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {make()}\r\n\r\n"
            writer.write(line.encode())
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].partition(b"\r")[0])
            await reader.readexactly(length)
            statuses[int(head[9:12])] += 1
        writer.close()

    await asyncio.gather(*(one() for _ in range(CONNECTIONS)))
    return statuses


async def test_random_strings_are_refused_without_a_look_up(server: ServerProcess) -> None:
    before = looked_up(server)
    assert await guess(server, lambda: "sk-" + "a" * 32, GUESSES) == {401: GUESSES}
    assert looked_up(server) == before


@pytest.mark.skipif(not hasattr(socket, "SO_REUSEPORT"), reason="needs a second loopback address")
async def test_well_formed_guesses_have_a_budget_and_others_are_not_held_up(
    server: ServerProcess, new_token: Callable[..., NewToken]
) -> None:
    known = new_token().token
    headers = {"Authorization": f"Bearer {known}"}
    before, begun = looked_up(server), time.monotonic()
    async with httpx.AsyncClient(
        base_url=server.url, trust_env=False, verify=False, timeout=30
    ) as client:
        assert (await client.get("/v1/models", headers=headers)).status_code == 200
        async with asyncio.TaskGroup() as group:
            flood = group.create_task(guess(server, lambda: new_secret().reveal(), GUESSES))
            while not flood.done():
                assert (await client.get("/v1/models", headers=headers)).status_code == 200
                await asyncio.sleep(0.01)
        statuses = flood.result()
    assert set(statuses) == {401, 429}
    seconds = int(time.monotonic() - begun) + 2
    most = (PER_ADDRESS + CONNECTIONS) * seconds  # what is under way is let through
    assert PER_ADDRESS <= looked_up(server) - before <= most
    fresh = {"Authorization": f"Bearer {new_token().token}"}
    elsewhere = httpx.HTTPTransport(local_address="127.0.0.2")
    with httpx.Client(base_url=server.url, transport=elsewhere, trust_env=False) as client:
        assert client.get("/v1/models", headers=fresh).status_code == 200
