from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from llm_proxy.benchmark.plan import Target
from llm_proxy.cli.benchmark_options import Given
from llm_proxy.cli.benchmark_target import Targets
from llm_proxy.cli.benchmark_workload import WorkloadChoice, choose_workload, parse_header
from llm_proxy.errors import WrongUsage


def choose(**options: Any) -> WorkloadChoice:
    return choose_workload(Given(**options))


def test_chat_is_what_is_sent_unless_something_else_is_asked_for() -> None:
    workload = choose().workload
    assert (workload.method, workload.endpoint) == ("POST", "/v1/chat/completions")
    assert json.loads(workload.bodies[0])["model"] == "gpt-4o-mini"
    assert ("Content-Type", "application/json") in workload.headers
    assert not workload.is_stream


def test_endpoint_of_a_preset_chooses_it() -> None:
    choice = choose(endpoint="/anthropic/v1/messages", stream=True)
    assert choice.preset.name == "messages"
    assert choice.workload.is_stream
    assert dict(choice.workload.headers)["anthropic-version"]


def test_other_endpoint_is_asked_with_get_and_no_body() -> None:
    choice = choose(endpoint="/v1/models")
    assert (choice.workload.method, choice.workload.bodies) == ("GET", (b"",))
    assert not choice.is_preset
    assert choice.workload.headers == ()


def test_method_without_a_body_sends_none() -> None:
    assert choose(method="get").workload.bodies == (b"",)
    assert choose(method="GET", data="{}").workload.bodies == (b"{}",)


def test_data_is_sent_as_it_is() -> None:
    assert choose(data='{"model":  "m"}').workload.bodies == (b'{"model":  "m"}',)
    streaming = choose(data='{"stream": true}')
    assert streaming.workload.is_stream
    assert json.loads(choose(data="{}", stream=True).workload.bodies[0])["stream"] is True


def test_data_comes_from_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"piped": 1}')))
    assert choose(data="@-").workload.bodies == (b'{"piped": 1}',)


def test_prompts_become_bodies(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text('"one"\n"two"\n')
    choice = choose(prompts=tmp_path / "p.jsonl", preset="chat-stream", model="m")
    assert len(choice.workload.bodies) == 2
    assert all(json.loads(body)["stream"] for body in choice.workload.bodies)


def test_headers_replace_those_of_the_preset() -> None:
    headers = choose(
        preset="messages",
        header=["Anthropic-Version: 2099-01-01", "X-Team: a: b "],
        cache_ttl="60s",
    ).workload.headers
    assert headers == (
        ("Content-Type", "application/json"),
        ("Cache-Control", "public, max-age=60"),
        ("Anthropic-Version", "2099-01-01"),
        ("X-Team", "a: b"),
    )


def test_streams_are_hung_up_on_at_a_rate() -> None:
    assert choose(preset="chat-stream", cancel_rate="10%").workload.cancel_rate == 0.1


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"preset": "poetry"}, "--preset must be one of chat, chat-stream, agent, embeddings, m"),
        ({"preset": "embeddings", "stream": True}, "--stream and --preset embeddings contradict"),
        ({"cancel_rate": "10%"}, "--cancel-rate needs --stream"),
        ({"stream": True, "cancel_rate": "ten"}, "--cancel-rate: 'ten' isn't a percentage"),
        ({"stream": True, "cancel_rate": "101%"}, "--cancel-rate must be at most 100%"),
        ({"make_prompts": "many"}, "--make-prompts must be TOKENS or COUNTxTOKENS, .* not 'many'"),
        ({"make_prompts": "0"}, "--make-prompts must be"),
        ({"make_prompts": "100001x1"}, "at most 100000 prompts"),
        ({"make_prompts": "5000x5000"}, "of 10000000 tokens together"),
        ({"method": "GET IT"}, "--method must be one like GET or POST"),
        ({"endpoint": "v1/models"}, "--endpoint must be a path like /v1/models"),
        ({"endpoint": "/v1 x"}, "--endpoint must be a path"),
        ({"cache_ttl": "0s"}, "--cache-ttl must be from 1s"),
        ({"cache_ttl": "soon"}, "--cache-ttl: 'soon' isn't a duration"),
        ({"cache_ttl": "1m", "header": ["cache-control: no-store"]}, "Cache-Control and --cache"),
        ({"header": ["Authorization: x"], "token": ["y"]}, "--header Authorization and --token"),
        ({"header": ["X-API-Key: x"], "preset": "messages"}, "--header x-api-key and --token"),
    ],
)
def test_what_cannot_be_sent_is_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(WrongUsage, match=reason):
        choose(**options)


@pytest.mark.parametrize(
    "text", ["X-Key s3cret", ": s3cret", "Host: s3cret", "X-Key: s3cret\r\nX: y", "X Key: s3cret"]
)
def test_wrong_header_is_refused_without_its_value(text: str) -> None:
    with pytest.raises(WrongUsage, match="--header") as caught:
        parse_header(text)
    assert "s3cret" not in str(caught.value)


def test_workload_is_described_for_the_report() -> None:
    target = Target(base_url="http://127.0.0.1:1")
    direct = Target(base_url="http://127.0.0.1:2")
    targets = Targets(proxied=target, direct=direct, is_throwaway=True)
    described = choose(preset="chat-stream").describe(targets, is_paired=True)
    assert (described.preset, described.stream, described.is_throwaway) == (
        "chat-stream",
        True,
        True,
    )
    assert described.direct_url == "http://127.0.0.1:2"
    assert choose().describe(targets, is_paired=False).direct_url is None


def test_agent_sends_its_session_in_turn_unless_other_requests_are_given() -> None:
    workload = choose(preset="agent", stream=True).workload
    assert (len(workload.bodies), workload.order, workload.is_stream) == (30, "in turn", True)
    assert choose(preset="agent", data="{}").workload.order == "shuffled"


def test_prompts_are_made_up_as_long_and_as_many_as_asked_for() -> None:
    bodies = choose(make_prompts="5x20").workload.bodies
    prompts = {json.loads(body)["messages"][0]["content"] for body in bodies}
    assert len(prompts) == 5
    assert {len(prompt.split()) for prompt in prompts} == {20}
    (one,) = choose(make_prompts="3000", preset="embeddings").workload.bodies
    assert len(json.loads(one)["input"].split()) == 3000
    assert choose(make_prompts="9", seed=1).workload != choose(make_prompts="9", seed=2).workload


def test_trace_says_what_is_sent_and_when(tmp_path: Path) -> None:
    lines = [{"timestamp": at, "input_length": 1 + at % 2000} for at in (0, 1000, 4000)]
    trace = tmp_path / "trace.jsonl"
    trace.write_text("\n".join(map(json.dumps, lines)))
    choice = choose(replay=trace, speed=2.0, duration="1s", stream=True)
    assert choice.replay is not None
    assert choice.replay.offsets_s == (0, 0.5)
    assert (len(choice.workload.bodies), choice.left_out) == (2, 0)
    assert choice.workload.is_stream
    with pytest.raises(WrongUsage, match="--endpoint /v1/responses is none of a preset"):
        choose(replay=trace, endpoint="/v1/responses")
