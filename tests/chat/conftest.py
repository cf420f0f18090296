"""The real mock as the other side of a chat."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from llm_proxy.chat.target import Target
from llm_proxy.secrets import Secret
from tests.end_to_end.mock_thread import MockThread
from tests.end_to_end.raw_upstream import RawUpstream


@pytest.fixture(scope="session")
def mock() -> Iterator[MockThread]:
    mock = MockThread()
    yield mock
    mock.close()


@pytest.fixture
def target(mock: MockThread) -> Target:
    return Target(base_url=f"http://{mock.address}", token=Secret("sk-token-of-tests-0123"))


@pytest.fixture
def upstream() -> Iterator[RawUpstream]:
    upstream = RawUpstream()
    yield upstream
    upstream.close()


@pytest.fixture
def raw_target(upstream: RawUpstream) -> Target:
    return Target(base_url=f"http://{upstream.address}", token=Secret("sk-token-of-tests-0123"))
