"""A server that stands in for OpenAI and Anthropic: start it, ask it, look at what it received."""

from __future__ import annotations

import asyncio
from collections import deque

from llm_proxy.benchmark.mock_connection import MockConnection
from llm_proxy.benchmark.mock_options import MockOptions
from llm_proxy.benchmark.mock_request import ReceivedRequest
from llm_proxy.benchmark.mock_service import MockService
from llm_proxy.benchmark.mock_waits import Waits
from llm_proxy.errors import ConfigError

_BACKLOG = 1024
_SWEEP_S = 5.0
_LONGEST_IDLE_S = 120.0
_LONGEST_CLOSE_S = 1.0


class MockServer:
    """A running mock; `start_mock` makes one."""

    def __init__(self, options: MockOptions) -> None:
        self.options = options
        self.service = MockService(options)
        self.waits = Waits(options, asyncio.get_running_loop().time)
        self.requests: deque[ReceivedRequest] = deque(maxlen=options.history)
        self.connections: set[MockConnection] = set()
        self._server: asyncio.Server | None = None
        self._sweeper: asyncio.TimerHandle | None = None

    @property
    def address(self) -> str:
        """`HOST:PORT` as it can be put into a URL."""
        assert self._server is not None
        host, port = self._server.sockets[0].getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    async def listen(self, host: str, port: int) -> None:
        """Raises ConfigError when the address can't be had."""
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(
                lambda: MockConnection(self), host, port, backlog=_BACKLOG
            )
        except (OSError, UnicodeError) as exc:
            reason = getattr(exc, "strerror", None) or str(exc)
            raise ConfigError(
                f"the mock can't listen on {host}:{port}: {reason}; choose another address, "
                "or port 0 for any free one"
            ) from exc
        self._sweeper = loop.call_later(_SWEEP_S, self.sweep)

    def sweep(self, longest_idle_s: float = _LONGEST_IDLE_S) -> None:
        """Closes the connections on which nothing has happened for so long; comes back later."""
        loop = asyncio.get_running_loop()
        for connection in list(self.connections):
            if connection.is_idle_since(loop.time() - longest_idle_s):
                connection.close()
        if self._sweeper is not None:
            self._sweeper.cancel()
        self._sweeper = loop.call_later(_SWEEP_S, self.sweep)

    async def close(self) -> None:
        """Stops listening and breaks off what is under way."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        if self._server is None:
            return
        self._server.close()
        for connection in list(self.connections):
            connection.abort()
        async with asyncio.timeout(_LONGEST_CLOSE_S):
            await self._server.wait_closed()


async def start_mock(host: str, port: int, *, options: MockOptions | None = None) -> MockServer:
    """Listens; port 0 takes a free one. Raises ConfigError."""
    server = MockServer(options or MockOptions())
    await server.listen(host, port)
    return server
