"""`GET /v1/models` and `GET /v1/models/{id}`, in the shape of either API."""

from __future__ import annotations

from typing import Any

import msgspec

from llm_proxy.benchmark.mock_answer import Answer
from llm_proxy.benchmark.mock_dialects import ANTHROPIC, dialect_of
from llm_proxy.benchmark.mock_faults import Faults
from llm_proxy.benchmark.mock_prompts import check_model
from llm_proxy.benchmark.mock_request import Request

_OPENAI_MODELS = ("gpt-4o", "gpt-4o-mini", "o4-mini", "text-embedding-3-small", "mock")
_ANTHROPIC_MODELS = ("claude-sonnet-5", "claude-haiku-4-5", "claude-mock")
_RELEASED = 1_700_000_000
_RELEASED_TEXT = "2023-11-14T22:13:20Z"


def list_models(request: Request, faults: Faults) -> Answer:
    if dialect_of(request) is ANTHROPIC:
        page = {
            "data": [_anthropic_model(name) for name in _ANTHROPIC_MODELS],
            "has_more": False,
            "first_id": _ANTHROPIC_MODELS[0],
            "last_id": _ANTHROPIC_MODELS[-1],
        }
    else:
        page = {"object": "list", "data": [_openai_model(name) for name in _OPENAI_MODELS]}
    return Answer(body=msgspec.json.encode(page))


def get_model(request: Request, faults: Faults) -> Answer:
    """Any name will do, as everywhere in the mock, but for `no-such-…`."""
    name = request.segment(2)
    check_model(name)
    shape = _anthropic_model if dialect_of(request) is ANTHROPIC else _openai_model
    return Answer(body=msgspec.json.encode(shape(name)))


def _openai_model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": _RELEASED, "owned_by": "mock"}


def _anthropic_model(name: str) -> dict[str, Any]:
    return {
        "type": "model",
        "id": name,
        "display_name": name.replace("-", " ").title(),
        "created_at": _RELEASED_TEXT,
        "lifecycle": "active",
    }
