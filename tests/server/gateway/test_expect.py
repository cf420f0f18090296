"""Expect: 100-continue (RFC 9110 section 10.1.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.server.gateway.conftest import Gate, StartGate

pytestmark = pytest.mark.anyio


async def test_body_is_invited_once_the_request_is_admitted(gate: Gate) -> None:
    client = await gate.connect()
    request = gate.request(b"Expect: 100-Continue", b"Content-Length: 2")
    for _ in range(2):  # the second time, the head is known already
        await client.send(request)
        assert await client.read_until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        peer = gate.openai.all[0] if gate.openai.all else await gate.openai.accept()
        assert b"expect" not in (await peer.head()).lower()
        await client.send(b"{}")
        assert await peer.read(2) == b"{}"
        await peer.answer(b"ok")
        assert (await client.response()).body == b"ok"


async def test_refused_body_is_not_invited(gate: Gate) -> None:
    client = await gate.connect()
    await client.send(
        gate.request(b"Expect: 100-continue", b"Content-Length: 2", target=b"/v1/none")
    )
    response = await client.response()
    assert response.status == 404
    # Whether the body comes after all can't be known, so nothing can follow it.
    assert response.header(b"Connection") == b"close"
    assert await client.is_left()


async def test_body_that_came_without_waiting_needs_no_invitation(gate: Gate) -> None:
    client = await gate.connect()
    await client.send(gate.request(b"Expect: 100-continue", body=b"{}"))
    peer = await gate.openai.accept()
    await peer.request()
    await peer.answer(b"ok")
    assert (await client.response()).status == 200


async def test_body_to_check_is_invited_and_then_checked(start_gate: StartGate) -> None:
    gate = await start_gate(param_whitelist={"model": ("gpt-4*",)})
    client = await gate.connect()
    await client.send(gate.request(b"Expect: 100-continue", b"Content-Length: 15"))
    assert (await client.response()).status == 100
    await client.send(b'{"mod')
    await client.send(b'el": "o3"}')
    response = await client.response()
    assert response.code == "param_not_allowed"


async def test_exhausted_token_is_refused_without_a_body_when_nothing_is_checked(
    gate: Gate,
) -> None:
    token = gate.new_token(max_requests=0)
    client = await gate.connect()
    request = gate.request(b"Expect: 100-continue", b"Content-Length: 2", token=token)
    await client.send(request)
    response = await client.response()
    assert response.code == "token_quota_exhausted"


async def test_other_expectations_are_ignored(gate: Gate) -> None:
    client = await gate.connect()
    await client.send(gate.request(b"Expect: the-unexpected", b"Content-Length: 2"))
    peer = await gate.openai.accept()
    await peer.head()
    await client.send(b"{}")
    await peer.read(2)
    await peer.answer()
    assert (await client.response()).status == 200


async def test_http_10_client_is_never_sent_an_interim_response(gate: Gate) -> None:
    client = await gate.connect()
    request = gate.request(b"Expect: 100-continue", b"Content-Length: 2")
    await client.send(request.replace(b"HTTP/1.1", b"HTTP/1.0"))
    peer = await gate.openai.accept()
    await peer.head()
    await client.send(b"{}")
    await peer.read(2)
    await peer.answer()
    assert (await client.response()).status == 200


async def test_body_for_the_control_plane_is_invited(gate: Gate) -> None:
    client = await gate.connect()
    await client.send(
        gate.request(b"Expect: 100-continue", b"Content-Length: 2", target=b"/manage/projects")
    )
    assert (await client.response()).status == 100
    peer = await gate.control.accept()
    await peer.head()
    await client.send(b"{}")
    assert await peer.read(2) == b"{}"
