"""The connection of a client whose address a proxy in front has told."""

from __future__ import annotations

import asyncio

from llm_proxy.server.gateway.client_connection import ClientConnection
from llm_proxy.server.gateway.gateway import Gateway


class ProxiedConnection(ClientConnection):
    __slots__ = ("_client",)

    def __init__(
        self, gateway: Gateway, connections: set[ClientConnection], *, client: str
    ) -> None:
        super().__init__(gateway, connections)
        self._client = client

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.client_ip = self._client
