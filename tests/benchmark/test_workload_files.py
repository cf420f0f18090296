from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.benchmark import workload_files
from llm_proxy.benchmark.presets import PRESETS
from llm_proxy.benchmark.workload_files import (
    asks_for_stream,
    prompt_bodies,
    read_data,
    read_prompts,
    read_stdin,
    streaming_data,
)
from llm_proxy.errors import ConfigError

CHAT = PRESETS["chat"]


def write(path: Path, *lines: str) -> Path:
    file = path / "prompts.jsonl"
    file.write_text("\n".join(lines))
    return file


def test_every_form_of_a_line_becomes_a_request(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        '"A string"',
        "",
        '{"prompt": "An object", "temperature": 0}',
        '{"messages": [{"role": "system", "content": "Be brief"}]}',
        '{"model": "mine", "input": "Whole"}',
    )
    bodies = [json.loads(body) for body in prompt_bodies(file, CHAT)]
    assert bodies == [
        {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "A string"}]},
        {
            "model": "gpt-4o-mini",
            "messages": [{"role": "user", "content": "An object"}],
            "temperature": 0,
        },
        {"model": "gpt-4o-mini", "messages": [{"role": "system", "content": "Be brief"}]},
        {"model": "mine", "input": "Whole"},
    ]


def test_prompts_of_embeddings_are_inputs(tmp_path: Path) -> None:
    file = write(tmp_path, '"A string"', '{"input": ["a", "b"]}')
    first, second = (json.loads(body) for body in prompt_bodies(file, PRESETS["embeddings"]))
    assert first["input"] == "A string"
    assert second["input"] == ["a", "b"]


def test_options_reach_every_line(tmp_path: Path) -> None:
    file = write(tmp_path, '"A"', '{"model": "mine", "messages": []}')
    for body in prompt_bodies(file, CHAT, model="other", stream=True):
        fields = json.loads(body)
        assert (fields["model"], fields["stream"]) == ("other", True)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "line 2: it isn't JSON"),
        ("[" * 5000, "line 2: it isn't JSON"),
        ("3", "line 2: it must be a string.*not a number"),
        ("null", "line 2: it must be a string.*not null"),
        ("[1]", "line 2: it must be a string.*not a list"),
        ('{"prompt": true}', "line 2: prompt must be a string, not true or false"),
        ('{"text": "x"}', "line 2: for --preset chat it must have prompt, messages or model"),
    ],
)
def test_wrong_line_is_named(line: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=reason):
        prompt_bodies(write(tmp_path, '"fine"', line), CHAT)


def test_file_without_prompts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no prompt"):
        read_prompts(write(tmp_path, "", "  "))


def test_file_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match=r"--data: /no/such can't be read \(No such file"):
        read_data("@/no/such")


def test_data_is_the_text_itself_or_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "body").write_bytes(b"\x00\xff")
    assert read_data(f"@{tmp_path / 'body'}") == b"\x00\xff"
    assert read_data('{"a": "ä"}') == '{"a": "ä"}'.encode()
    assert read_stdin(io.BytesIO(b"piped")) == b"piped"


def test_more_than_every_process_can_hold_is_refused() -> None:
    with pytest.raises(ConfigError, match="--data @- is larger than 64 MiB"):
        read_stdin(io.BytesIO(bytes(workload_files.LARGEST_FILE + 1)))


def test_data_is_made_to_ask_for_a_stream_unless_it_says() -> None:
    assert json.loads(streaming_data(b'{"messages": []}', "openai")) == {
        "messages": [],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    for untouched in (b'{"stream":false}', b"no JSON", b"[1]", b""):
        assert streaming_data(untouched, "openai") == untouched


@given(st.binary() | st.text().map(str.encode))
def test_anything_may_be_a_body(data: bytes) -> None:
    assert asks_for_stream(data) in (True, False)
    assert streaming_data(data, "openai") is not None


def test_stream_is_asked_for_by_true_alone() -> None:
    assert asks_for_stream(b'{"stream": true}')
    assert not asks_for_stream(b'{"stream": "true"}')
