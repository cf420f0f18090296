"""What the sockets say is tested in test_upstream_failures.py; here, what follows from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from llm_proxy.http1.connection import UpstreamConnection, UpstreamError
from llm_proxy.http1.retry import BASE_S, Retries
from llm_proxy.server.gateway.replay import wait_before_replay
from llm_proxy.server.gateway.request_head import RequestHead

if TYPE_CHECKING:
    from tests.server.gateway.conftest import Gate

pytestmark = pytest.mark.anyio


def wait(
    gate: Gate,
    method: bytes = b"GET",
    *,
    named: tuple[bytes, ...] = (),
    is_untouched: bool = True,
    is_reused: bool = False,
    attempts: int = 1,
) -> float | None:
    head = RequestHead()
    head.method = method
    head.named = dict.fromkeys(named, b"1")
    connection = UpstreamConnection(gate.upstreams[0].pool)
    connection.is_reused = is_reused
    return wait_before_replay(
        head,
        b"sent",
        connection,
        error=UpstreamError("upstream_broken", "", is_untouched=is_untouched),
        tries=1,
        retries=Retries(attempts, random=lambda: 1.0),
    )


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"])
async def test_idempotent_requests_wait_for_their_turn(gate: Gate, method: bytes) -> None:
    assert wait(gate, method) == BASE_S


@pytest.mark.parametrize("method", [b"POST", b"PATCH", b"get"])
async def test_others_need_a_key(gate: Gate, method: bytes) -> None:
    assert wait(gate, method) is None
    assert wait(gate, method, named=(b"idempotency-key",)) == BASE_S


async def test_kept_connection_is_replaced_at_once_and_without_a_budget(gate: Gate) -> None:
    assert wait(gate, is_reused=True, attempts=0) == 0.0


async def test_nothing_is_repeated_once_a_byte_came_back(gate: Gate) -> None:
    assert wait(gate, is_untouched=False, is_reused=True) is None


async def test_no_attempts_no_replay(gate: Gate) -> None:
    assert wait(gate, attempts=0) is None
