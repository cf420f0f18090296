"""A real WebSocket server on threads: an echo, and enough of OpenAI's Realtime API."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from typing import Any

from websockets.datastructures import Headers
from websockets.sync.server import Server, ServerConnection, serve
from websockets.typing import Subprotocol


class WebSocketUpstream:
    def __init__(self) -> None:
        self.requests: list[Headers] = []  # of every handshake, in their order
        self.paths: list[str] = []
        self._server: Server = serve(
            self._handle,
            "127.0.0.1",
            0,
            subprotocols=[Subprotocol("realtime")],
            select_subprotocol=_select,
            max_size=None,
        )
        self._thread = threading.Thread(target=self._server.serve_forever, name="websockets")
        self._thread.start()

    @property
    def address(self) -> str:
        host, port = self._server.socket.getsockname()
        return f"{host}:{port}"

    def _handle(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        self.requests.append(connection.request.headers)
        self.paths.append(connection.request.path)
        if connection.request.path.startswith("/v1/realtime"):
            _speak_realtime(connection)
        else:
            _echo(connection)

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join(10)


def _select(_: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    return next((protocol for protocol in offered if protocol == "realtime"), None)


def _echo(connection: ServerConnection) -> None:
    for message in connection:
        if message == "close":
            connection.close(4321, "as you wish")
        else:
            connection.send(message)


def _speak_realtime(connection: ServerConnection) -> None:
    session = {"type": "realtime", "object": "realtime.session", "id": "sess_1"}
    _say(connection, "session.created", session=session)
    for message in connection:
        event: dict[str, Any] = json.loads(message)
        if event["type"] == "session.update":
            _say(connection, "session.updated", session=session | event["session"])
        elif event["type"] == "conversation.item.create":
            _say(connection, "conversation.item.added", item=event["item"])
        elif event["type"] == "response.create":
            _respond(connection)
        else:
            _say(connection, "error", error={"type": "invalid_request_error", "message": "What?"})


def _respond(connection: ServerConnection) -> None:
    response = {"id": "resp_1", "object": "realtime.response"}
    place = {"response_id": "resp_1", "item_id": "item_1", "output_index": 0, "content_index": 0}
    _say(connection, "response.created", response=response | {"status": "in_progress"})
    for word in ("Hello", " there"):
        _say(connection, "response.output_text.delta", delta=word, **place)
    _say(connection, "response.output_text.done", text="Hello there", **place)
    _say(connection, "response.done", response=response | {"status": "completed"})


def _say(connection: ServerConnection, kind: str, **fields: Any) -> None:
    connection.send(json.dumps({"type": kind, "event_id": "event_1", **fields}))
