from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from llm_proxy.benchmark.mock_upstream import MockServer
from llm_proxy.benchmark.presets import PRESETS, Preset


def body_of(preset: Preset, **options: Any) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(preset.body(preset.asking("Hello"), **options))
    return document


@pytest.mark.anyio
@pytest.mark.parametrize("name", PRESETS)
async def test_preset_is_answered_by_its_api(name: str, mock: MockServer) -> None:
    preset = PRESETS[name]
    headers = {
        **dict(preset.headers),
        preset.key_header: f"{preset.key_scheme} any-key".strip(),
        "content-type": "application/json",
    }
    body = preset.body(preset.asking(preset.prompt), stream=preset.is_stream)
    async with httpx.AsyncClient(trust_env=False) as http:
        url = f"http://{mock.address}{preset.endpoint}"
        answer = await http.post(url, content=body, headers=headers)
    assert answer.status_code == 200, answer.text
    is_stream = answer.headers["content-type"].startswith("text/event-stream")
    assert is_stream is preset.is_stream


def test_stream_of_chat_completions_asks_for_its_usage() -> None:
    body = body_of(PRESETS["chat"], stream=True)
    assert body["stream"] is True
    assert body["stream_options"] == {"include_usage": True}


def test_anthropic_knows_no_stream_options() -> None:
    body = body_of(PRESETS["messages"], stream=True)
    assert body["stream"] is True
    assert "stream_options" not in body
    assert body["max_tokens"] > 0


def test_plain_request_says_nothing_of_streams() -> None:
    assert body_of(PRESETS["chat"]) == {
        "model": "gpt-4o-mini",
        "messages": [{"role": "user", "content": "Hello"}],
    }


def test_model_that_is_named_replaces_any_other() -> None:
    assert body_of(PRESETS["embeddings"], model="other")["model"] == "other"
    whole = json.loads(PRESETS["chat"].body({"model": "its own", "input": "x"}, model="other"))
    assert whole == {"model": "other", "input": "x"}


def test_request_that_names_its_model_is_left_as_it_is() -> None:
    whole = {"model": "its own", "messages": []}
    assert json.loads(PRESETS["messages"].body(whole)) == whole


def test_an_agent_sends_its_session_in_turn_and_others_their_prompt() -> None:
    agent, chat = PRESETS["agent"], PRESETS["chat"]
    bodies = [json.loads(body) for body in agent.bodies(seed=1, model="m", stream=True)]
    assert len(bodies) == 30
    assert all(body["model"] == "m" and body["stream"] for body in bodies)
    assert agent.order == "in turn"
    assert chat.bodies(seed=1) == (chat.body(chat.asking(chat.prompt)),)
    assert chat.order == "shuffled"
