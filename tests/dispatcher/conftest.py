"""What the tests of the record writer start from."""

from __future__ import annotations

import pytest

from llm_proxy.events.record import ExchangeRecord


@pytest.fixture
def record() -> ExchangeRecord:
    """A plain JSON exchange; tests alter it with `msgspec.structs.replace`."""
    return ExchangeRecord(
        exchange=0,
        timestamp=1700000000.25,
        request_id="request-1",
        project_id="project-1",
        token_id="token-1",
        api="openai",
        endpoint="/v1/chat/completions",
        method="POST",
        status_code=200,
        duration_ms=12.3456,
        upstream_ms=11.2344,
        ttft_ms=11.5,
        stream=False,
        request_bytes=400,
        response_bytes=413,
        truncated=False,
        error_code="",
        client_ip="127.0.0.1",
        content_encoding="",
        body=b'{"model":"gpt-4o","created":1677652288,"usage":'
        b'{"prompt_tokens":9,"completion_tokens":12,"total_tokens":21}}',
    )
