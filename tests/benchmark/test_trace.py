from __future__ import annotations

import json
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_proxy.benchmark.presets import PRESETS
from llm_proxy.benchmark.trace import Excerpt, Trace, read_trace
from llm_proxy.benchmark.trace_bodies import TraceBodies
from llm_proxy.dispatcher.lines import Line, json_lines
from llm_proxy.dispatcher.metadata import Metadata
from llm_proxy.errors import ConfigError

RECORD = {
    "timestamp": "2026-01-05T09:30:12.5Z",
    "request_id": "0194",
    "endpoint": "/v1/chat/completions",
    "stream": True,
    "metadata": {"model": "gpt-4o", "prompt_tokens": 9, "completion_tokens": 120},
}


def read(
    path: Path,
    *lines: Any,
    preset: str = "chat",
    model: str | None = None,
    stream: bool = False,
    **excerpt: Any,
) -> Trace:
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    chosen = PRESETS[preset]
    made = TraceBodies(chosen, endpoint=chosen.endpoint, model=model, stream=stream, seed=1)
    return read_trace(path, made, Excerpt(**excerpt))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "trace.jsonl"


def bodies_of(trace: Trace) -> list[dict[str, Any]]:
    """In the order in which they are sent."""
    return [json.loads(trace.bodies[body]) for body in trace.replay.bodies]


def asked(body: dict[str, Any]) -> str:
    text: str = body["messages"][-1]["content"]
    return text


def test_lengths_become_prompts_that_are_made_up(path: Path) -> None:
    trace = read(
        path, {"timestamp": 27482, "input_length": 70, "output_length": 52, "hash_ids": []}
    )
    (body,) = bodies_of(trace)
    assert len(asked(body).split()) == 70
    assert (body["max_tokens"], body["model"]) == (52, "gpt-4o-mini")
    assert trace.is_made_up


def test_offsets_count_from_the_first_and_speed_shortens_them(path: Path) -> None:
    lines = [{"timestamp": at, "prompt": "x"} for at in (27482, 28482, 31482)]
    assert read(path, *lines).replay.offsets_s == (0, 1, 4)
    assert read(path, *lines, speed=2).replay.offsets_s == (0, 0.5, 2)


def test_lines_are_sorted_and_equal_times_keep_their_order(path: Path) -> None:
    lines = [(2000, "d"), (0, "a"), (1000, "b"), (1000, "c")]
    trace = read(path, *({"timestamp": at, "prompt": text} for at, text in lines))
    assert [asked(body) for body in bodies_of(trace)] == ["a", "b", "c", "d"]
    assert trace.replay.offsets_s == (0, 1, 1, 2)


def test_equal_bodies_are_kept_once(path: Path) -> None:
    trace = read(path, *({"timestamp": at, "prompt": f"{at % 2}"} for at in range(6)))
    assert len(trace.bodies) == 2
    assert trace.replay.bodies == (0, 1) * 3
    assert not trace.is_made_up


def test_records_of_the_gateway_are_replayed_as_the_streams_they_were(path: Path) -> None:
    plain = {**RECORD, "timestamp": "2026-01-05T09:30:13.5Z", "stream": False}
    streamed, other = bodies_of(read(path, RECORD, plain))
    assert (streamed["model"], streamed["max_tokens"], streamed["stream"]) == ("gpt-4o", 120, True)
    assert len(asked(streamed).split()) == 9
    assert "stream" not in other
    assert all(body["stream"] for body in bodies_of(read(path, plain, stream=True)))
    assert bodies_of(read(path, plain, model="mine"))[0]["model"] == "mine"


def test_records_of_anything_else_are_left_out(path: Path) -> None:
    unknown = {"model": None, "prompt_tokens": None, "completion_tokens": None}
    trace = read(
        path,
        {**RECORD, "timestamp": "2026-01-05T09:30:00Z", "endpoint": "/v1/models"},
        {**RECORD, "timestamp": "2026-01-05T09:30:01Z", "metadata": unknown},
        RECORD,
    )
    assert (trace.replay.offsets_s, trace.left_out) == ((0,), 2)
    with pytest.raises(ConfigError, match=r"no record of this endpoint .*\(1 others\)"):
        read(path, RECORD, preset="embeddings")


def test_lines_of_the_event_log_are_such_records(path: Path) -> None:
    line = Line(
        timestamp=datetime(2026, 1, 5, tzinfo=UTC),
        request_id="0194",
        project_id="p",
        token_id="t",
        api="openai",
        endpoint="/v1/chat/completions",
        method="POST",
        status_code=200,
        duration_ms=1.0,
        upstream_ms=1.0,
        ttft_ms=1.0,
        stream=False,
        request_bytes=1,
        response_bytes=1,
        truncated=False,
        error_code=None,
        client_ip="127.0.0.1",
        metadata=Metadata(model="gpt-4o", prompt_tokens=7, completion_tokens=3),
        dropped=msgspec.UNSET,
    )
    path.write_bytes(json_lines([line, line]))
    chat = PRESETS["chat"]
    made = TraceBodies(chat, endpoint=chat.endpoint, model=None, stream=False, seed=1)
    trace = read_trace(path, made, Excerpt())
    assert (trace.replay.offsets_s, trace.left_out) == ((0, 0), 0)
    body = bodies_of(trace)[0]
    assert (len(asked(body).split()), body["max_tokens"], body["model"]) == (7, 3, "gpt-4o")


def test_replay_ends_after_so_many_or_so_long(path: Path) -> None:
    lines = [{"timestamp": at * 1000, "prompt": "x"} for at in range(10)]
    assert len(read(path, *lines, requests=4).replay.offsets_s) == 4
    assert len(read(path, *lines, duration_s=2.5, speed=2).replay.offsets_s) == 5


def test_line_that_is_not_utf8_is_named(path: Path) -> None:
    path.write_bytes(b'{"timestamp": 0, "prompt": "\xff"}')
    chat = PRESETS["chat"]
    made = TraceBodies(chat, endpoint=chat.endpoint, model=None, stream=False, seed=1)
    with pytest.raises(ConfigError, match=r"line 1: it isn't UTF-8, as JSON is"):
        read_trace(path, made, Excerpt())


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("x", r"line 2: it must be a JSON object with a timestamp"),
        ({"prompt": "x"}, r"line 2: it must be a JSON object with a timestamp .*missing"),
        ({"timestamp": 1}, "line 2: it must have body, messages, prompt or input_length"),
        ({"timestamp": 1, "body": "x"}, "line 2: body must be an object"),
        ({"timestamp": 1, "prompt": 3}, "line 2: prompt must be a string, not a number"),
        ({"timestamp": 1, "input_length": -1}, "line 2: input_length must be a whole number"),
        ({"timestamp": 1, "input_length": 10**7}, "from 0 to 2000000"),
        ({"timestamp": 0.5, "prompt": "x"}, "line 2: timestamp is in seconds since the start"),
        ({"timestamp": 86_400_500, "prompt": "x"}, "takes more than a day; raise --speed"),
    ],
)
def test_wrong_line_is_named(line: Any, reason: str, path: Path) -> None:
    with pytest.raises(ConfigError, match=reason):
        read(path, {"timestamp": 2, "prompt": "x"}, line)


def test_empty_trace_is_refused(path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no request; give a timestamp and body"):
        read(path)


def test_more_bodies_than_fit_are_refused(path: Path) -> None:
    path.write_text("".join(f'{{"timestamp": {n}, "input_length": 1{n}0000}}\n' for n in range(9)))
    chat = PRESETS["chat"]
    made = TraceBodies(chat, endpoint=chat.endpoint, model=None, stream=False, seed=1)
    with pytest.raises(ConfigError, match="more than 1 MiB of request bodies; replay less of it"):
        read_trace(path, made, Excerpt(), largest=1 << 20)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(0, 2000) | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
FIELDS = st.fixed_dictionaries(
    {"timestamp": st.integers(0, 10**6) | st.floats(0, 100) | JSON},
    optional={
        name: JSON
        for name in (
            *("body", "messages", "prompt", "input_length", "output_length"),
            *("request_id", "metadata", "endpoint", "stream"),
        )
    },
)


@settings(deadline=None, max_examples=60)
@given(st.lists(FIELDS.map(json.dumps) | st.text(max_size=20), max_size=5))
def test_any_file_is_read_or_refused(lines: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.jsonl"
        path.write_bytes("\n".join(lines).encode(errors="surrogatepass"))
        chat = PRESETS["chat"]
        made = TraceBodies(chat, endpoint=chat.endpoint, model=None, stream=False, seed=1)
        try:
            trace = read_trace(path, made, Excerpt())
        except ConfigError as exc:
            assert str(path) in str(exc)
            return
    replay = trace.replay
    assert list(replay.offsets_s) == sorted(replay.offsets_s)
    assert replay.offsets_s[0] == 0
    assert set(replay.bodies) == set(range(len(trace.bodies)))
    assert len(replay.bodies) + trace.left_out <= len(lines)
