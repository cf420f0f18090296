"""WebSockets through a real server, between real WebSocket libraries and OpenAI's own client."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from tests.end_to_end.conftest import UPSTREAM_KEY
from tests.end_to_end.server_process import ServerProcess
from tests.end_to_end.waiting import eventually
from tests.end_to_end.websocket_upstream import WebSocketUpstream

ITEM: Any = {
    "type": "message",
    "role": "user",
    "content": [{"type": "input_text", "text": "Say hello"}],
}


@pytest.fixture(scope="module")
def upstream() -> Iterator[WebSocketUpstream]:
    upstream = WebSocketUpstream()
    yield upstream
    upstream.close()


@pytest.fixture(scope="module")
def proxy(
    upstream: WebSocketUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    server = ServerProcess(tmp_path_factory.mktemp("proxy"), upstream=upstream.address)
    try:
        server.start()
        yield server
    finally:
        server.destroy()


@pytest.fixture(scope="module")
def token(proxy: ServerProcess) -> str:
    return proxy.add_token(UPSTREAM_KEY.format(api="openai"))


def dial(proxy: ServerProcess, path: str = "/v1/echo", **options: Any) -> ClientConnection:
    connection: ClientConnection = connect(f"ws://{proxy.address}{path}", max_size=None, **options)
    return connection


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_messages_of_all_sizes_and_kinds_come_back(proxy: ServerProcess, token: str) -> None:
    with dial(proxy, additional_headers=bearer(token)) as socket:
        for size in (0, 1, 125, 126, 65535, 65536, 1 << 20):
            message = os.urandom(size)
            socket.send(message)
            assert socket.recv(10) == message
        socket.send("grüß dich")
        assert socket.recv(10) == "grüß dich"


def test_many_messages_are_under_way_at_once(proxy: ServerProcess, token: str) -> None:
    with dial(proxy, additional_headers=bearer(token)) as socket:
        for number in range(300):
            socket.send(str(number) * 100)
        for number in range(300):
            assert socket.recv(10) == str(number) * 100


def test_pings_pass_through(proxy: ServerProcess, token: str) -> None:
    with dial(proxy, additional_headers=bearer(token)) as socket:
        assert socket.ping("are you there?").wait(10)


def test_close_codes_pass_through(proxy: ServerProcess, token: str) -> None:
    with dial(proxy, additional_headers=bearer(token)) as socket:
        socket.send("close")
        with pytest.raises(ConnectionClosedError) as caught:
            socket.recv(10)
    assert caught.value.rcvd is not None
    assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (4321, "as you wish")


def test_browsers_send_the_token_as_a_sub_protocol(
    proxy: ServerProcess, upstream: WebSocketUpstream, token: str
) -> None:
    offered = [f"openai-insecure-api-key.{token}", "realtime", "openai-organization.org-1"]
    with dial(proxy, subprotocols=[Subprotocol(name) for name in offered]) as socket:
        assert socket.subprotocol == "realtime"
        socket.send("x")
        assert socket.recv(10) == "x"
    seen = upstream.requests[-1]
    assert seen["Sec-WebSocket-Protocol"] == "realtime, openai-organization.org-1"
    assert seen["Authorization"] == "Bearer " + UPSTREAM_KEY.format(api="openai")
    assert token not in str(seen)


def test_refusal_tells_a_websocket_client_why(proxy: ServerProcess) -> None:
    with pytest.raises(InvalidStatus) as caught, dial(proxy):
        pass
    assert caught.value.response.status_code == 401
    assert b"missing_token" in (caught.value.response.body or b"")


def test_tunnel_leaves_one_record_without_secrets(proxy: ServerProcess, token: str) -> None:
    headers = bearer(token) | {"X-Request-ID": "one-tunnel"}
    with dial(proxy, "/v1/echo?key=hidden", additional_headers=headers) as socket:
        socket.send(b"12345")
        assert socket.recv(10) == b"12345"

    def find() -> list[dict[str, Any]]:
        return [record for record in proxy.records() if record["request_id"] == "one-tunnel"]

    (record,) = eventually(find)
    assert record["status_code"] == 101
    assert record["stream"]
    assert (record["error_code"], record["truncated"]) == (None, False)
    assert record["request_bytes"] > 5 <= record["response_bytes"]
    assert (record["endpoint"], record["method"]) == ("/v1/echo", "GET")
    log = proxy.event_log.read_text() + proxy.stderr
    assert token not in log
    assert "hidden" not in log


def openai_options(proxy: ServerProcess, token: str) -> dict[str, Any]:
    return {"api_key": token, "base_url": f"{proxy.url}/v1"}


# Which the client does itself.
@pytest.mark.filterwarnings(r"ignore:connect\(\) must be used as a context manager")
def test_official_client_has_a_conversation(
    proxy: ServerProcess, upstream: WebSocketUpstream, token: str
) -> None:
    with (
        openai.OpenAI(**openai_options(proxy, token)) as client,
        client.realtime.connect(model="gpt-realtime") as connection,
    ):
        connection.session.update(session={"type": "realtime", "instructions": "Be brief."})
        connection.conversation.item.create(item=ITEM)
        connection.response.create()
        text, kinds = "", []
        for event in connection:
            kinds.append(event.type)
            if event.type == "response.output_text.delta":
                text += event.delta
            elif event.type == "response.done":
                break
    assert text == "Hello there"
    assert kinds[:3] == ["session.created", "session.updated", "conversation.item.added"]
    assert upstream.paths[-1] == "/v1/realtime?model=gpt-realtime"
    assert upstream.requests[-1]["Authorization"] == "Bearer " + UPSTREAM_KEY.format(api="openai")


def test_official_async_client_has_a_conversation(proxy: ServerProcess, token: str) -> None:
    async def converse() -> str:
        async with (
            openai.AsyncOpenAI(**openai_options(proxy, token)) as client,
            client.realtime.connect(model="gpt-realtime") as connection,
        ):
            await connection.conversation.item.create(item=ITEM)
            await connection.response.create()
            async for event in connection:
                if event.type == "response.output_text.done":
                    return event.text
        return ""

    assert asyncio.run(converse()) == "Hello there"


def test_official_client_raises_on_a_refusal(proxy: ServerProcess) -> None:
    with (
        openai.OpenAI(**openai_options(proxy, "sk-unknown")) as client,
        pytest.raises(InvalidStatus) as caught,
        client.realtime.connect(model="gpt-realtime"),
    ):
        pass
    assert caught.value.response.status_code == 401
