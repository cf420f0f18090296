from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from llm_proxy.chat import transcript
from llm_proxy.chat.conversation import Conversation, Turn
from llm_proxy.errors import LLMProxyError

TURNS = [
    Turn(asked="a", said="b", model="m"),
    Turn(asked="ü\n", said="half", model="other", was_stopped=True),
]


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "chat.json"
    conversation = Conversation(model="m", system="s", turns=list(TURNS))
    transcript.save(path, conversation, "anthropic", replaces=False)
    assert transcript.load(path) == (conversation, "anthropic")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_file_is_plain_json_with_a_version(tmp_path: Path) -> None:
    path = tmp_path / "chat.json"
    transcript.save(path, Conversation(model="m", turns=TURNS[1:]), "openai", replaces=False)
    assert json.loads(path.read_text()) == {
        "format": "llm-proxy chat",
        "version": 1,
        "api": "openai",
        "model": "m",
        "system": None,
        "messages": [
            {"role": "user", "content": "ü\n"},
            {"role": "assistant", "content": "half", "model": "other", "stopped": True},
        ],
    }


def test_file_is_replaced_only_when_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "chat.json"
    path.write_text("mine")
    conversation = Conversation(model="m", turns=list(TURNS))
    with pytest.raises(FileExistsError):
        transcript.save(path, conversation, "openai", replaces=False)
    assert path.read_text() == "mine"
    transcript.save(path, conversation, "openai", replaces=True)
    assert transcript.load(path)[0].turns == TURNS


def test_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    conversation = Conversation(model="m", turns=list(TURNS))
    with pytest.raises(LLMProxyError, match="is a folder"):
        transcript.save(tmp_path, conversation, "openai", replaces=False)
    with pytest.raises(LLMProxyError, match="can't be written"):
        transcript.save(tmp_path / "no" / "x.json", conversation, "openai", replaces=False)


@pytest.mark.parametrize("name", ["x" * 300, "nul\0", "loop"])
def test_name_that_no_file_can_have_is_told(tmp_path: Path, name: str) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(LLMProxyError, match="can't be used"):
        transcript.save(tmp_path / name, Conversation(model="m"), "openai", replaces=True)
    with pytest.raises(LLMProxyError, match="can't be used"):
        transcript.load(tmp_path / name)


def test_pipe_is_neither_replaced_nor_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with pytest.raises(LLMProxyError, match="is a device, a pipe"):
        transcript.save(path, Conversation(model="m"), "openai", replaces=True)
    with pytest.raises(LLMProxyError, match="is a device, a pipe"):
        transcript.load(path)
    assert path.is_fifo()


GOOD = {
    "format": "llm-proxy chat",
    "version": 1,
    "api": "openai",
    "model": "m",
    "system": None,
    "messages": [],
}
ASKED = {"role": "user", "content": "a"}


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({}, "wasn't written by /save"),
        ({**GOOD, "format": "other"}, "wasn't written by /save"),
        ({**GOOD, "version": 2}, "has version 2 of the format"),
        ({**GOOD, "model": 7}, "Expected `str`, got `int`"),
        ({**GOOD, "colour": 7}, "unknown field `colour`"),
        ({**GOOD, "messages": [{"role": "robot", "content": ""}]}, "robot"),
        ({**GOOD, "messages": [ASKED]}, "messages 0 and 1 don't"),
        ({**GOOD, "messages": [ASKED, ASKED]}, "messages 0 and 1 don't"),
        ([], "can't be loaded"),
    ],
)
def test_what_cannot_be_loaded_says_why(tmp_path: Path, document: object, words: str) -> None:
    path = tmp_path / "chat.json"
    path.write_text(json.dumps(document))
    with pytest.raises(LLMProxyError) as caught:
        transcript.load(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)


def test_missing_and_broken_files_say_so(tmp_path: Path) -> None:
    with pytest.raises(LLMProxyError, match="can't be read: No such file"):
        transcript.load(tmp_path / "no.json")
    broken = tmp_path / "broken.json"
    broken.write_bytes(b"\xff{")
    with pytest.raises(LLMProxyError, match="can't be loaded"):
        transcript.load(broken)


def test_file_of_any_size_is_not_read_into_memory(tmp_path: Path) -> None:
    path = tmp_path / "huge.json"
    with path.open("wb") as file:
        os.truncate(file.fileno(), (64 << 20) + 1)
    with pytest.raises(LLMProxyError, match="larger than 64 MiB"):
        transcript.load(path)
