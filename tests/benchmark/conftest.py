"""A mock upstream for the test that asks for one."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from llm_proxy.benchmark.mock_options import MockOptions
from llm_proxy.benchmark.mock_upstream import MockServer, start_mock


@pytest.fixture
def mock_options(request: pytest.FixtureRequest) -> MockOptions:
    """Parametrize it indirectly to have others than the defaults."""
    options = getattr(request, "param", None)
    return options if isinstance(options, MockOptions) else MockOptions()


@pytest.fixture
async def mock(anyio_backend: object, mock_options: MockOptions) -> AsyncIterator[MockServer]:
    server = await start_mock("127.0.0.1", 0, options=mock_options)
    yield server
    await server.close()
