"""The mock of OpenAI and Anthropic on a loop of its own, so that blocking tests can look at it."""

from __future__ import annotations

import asyncio
import threading

import uvloop

from llm_proxy.benchmark.mock_options import MockOptions
from llm_proxy.benchmark.mock_request import ReceivedRequest
from llm_proxy.benchmark.mock_upstream import MockServer, start_mock


class MockThread:
    def __init__(self, options: MockOptions | None = None) -> None:
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        loop = self._runner.get_loop()
        self._server: MockServer = loop.run_until_complete(
            start_mock("127.0.0.1", 0, options=options or MockOptions())
        )
        self._thread = threading.Thread(target=loop.run_forever, name="mock", daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        return self._server.address

    @property
    def requests(self) -> list[ReceivedRequest]:
        """The last ones received, the newest last."""
        return list(self._server.requests)

    def close(self) -> None:
        loop = self._runner.get_loop()
        asyncio.run_coroutine_threadsafe(self._server.close(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        self._thread.join(10)
        self._runner.close()
