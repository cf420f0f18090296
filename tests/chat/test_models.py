from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from llm_proxy.chat.models import Model, list_models
from llm_proxy.chat.target import Target
from llm_proxy.errors import LLMProxyError, NotAuthorised
from tests.chat.serving import answering, plain
from tests.end_to_end.raw_upstream import RawUpstream

pytestmark = pytest.mark.anyio
RELEASED = datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)


async def test_models_of_openai_have_owners(target: Target) -> None:
    found = await list_models(target)
    assert found[0] == Model(id="gpt-4o", name=None, owner="mock", created_at=RELEASED)
    assert [model.id for model in found] == sorted(model.id for model in found)


async def test_models_of_anthropic_have_names(target: Target) -> None:
    found = await list_models(replace(target, api="anthropic"))
    assert found[0].id == "claude-haiku-4-5"
    assert found[0].name == "Claude Haiku 4 5"
    assert found[0].created_at == RELEASED


async def test_every_page_is_asked_for(upstream: RawUpstream, raw_target: Target) -> None:
    pages = [
        plain(b"200 OK", b'{"data":[{"id":"b"}],"has_more":true,"last_id":"b&c"}'),
        plain(b"200 OK", b'{"data":[{"id":"a","created_at":"never"},{"id":"z","created":1e99}]}'),
    ]
    with answering(upstream, *pages) as requests:
        found = await list_models(replace(raw_target, api="anthropic"))
    assert [(model.id, model.created_at) for model in found] == [
        ("a", None),
        ("b", None),
        ("z", None),
    ]
    assert requests[1].start.split()[1] == b"/anthropic/v1/models?limit=1000&after_id=b%26c"


@pytest.mark.parametrize(
    ("body", "kind", "words"),
    [
        (plain(b"401 Unauthorized", b""), NotAuthorised, "token was refused"),
        (plain(b"200 OK", b"<html>"), LLMProxyError, "can't be understood"),
    ],
)
async def test_failures_are_sentences(
    upstream: RawUpstream, raw_target: Target, body: bytes, kind: type[LLMProxyError], words: str
) -> None:
    with (
        answering(upstream, body),
        pytest.raises(kind, match=words),
    ):
        await list_models(raw_target)
