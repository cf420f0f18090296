from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from prompt_toolkit.input import PipeInput, create_pipe_input
from prompt_toolkit.output import DummyOutput

from llm_proxy.chat.history_file import HistoryFile
from llm_proxy.chat.line_editor import CommandCompleter, CtrlC, KeptHistory, LineEditor

pytestmark = pytest.mark.anyio
ENTER, ALT_ENTER, CTRL_J, CTRL_C, CTRL_D = "\r", "\x1b\r", "\n", "\x03", "\x04"


@pytest.fixture
def keys() -> Iterator[PipeInput]:
    with create_pipe_input() as keys:
        yield keys


def _editor(keys: PipeInput, history: HistoryFile | None = None) -> LineEditor:
    return LineEditor(history, input=keys, output=DummyOutput())


@pytest.mark.parametrize(
    ("typed", "entry"),
    [
        (f"hello{ENTER}", "hello"),
        (f"one{ALT_ENTER}two{ENTER}", "one\ntwo"),
        (f"one{CTRL_J}two{ENTER}", "one\ntwo"),
        (f"one\\{ENTER}two{ENTER}", "one\ntwo"),
        (f"\x1b[200~pasted\nlines\x1b[201~{ENTER}", "pasted\nlines"),
        (f"thrown away{CTRL_C}kept{ENTER}", "kept"),
        (f"/hel{ENTER}", "/hel"),
    ],
)
async def test_keys_make_an_entry(keys: PipeInput, typed: str, entry: str) -> None:
    keys.send_text(typed)
    assert await _editor(keys).read() == entry


async def test_bytes_of_another_encoding_are_replaced(keys: PipeInput, tmp_path: Path) -> None:
    history = HistoryFile(tmp_path / "history")
    keys.send_bytes(b"caf\xe9\r")
    assert await _editor(keys, history).read() == "caf?"
    assert history.load() == ["caf?"]


async def test_ctrl_d_ends_and_ctrl_c_tells(keys: PipeInput) -> None:
    editor = _editor(keys)
    keys.send_text(CTRL_C)
    with pytest.raises(CtrlC):
        await editor.read()
    keys.send_text(CTRL_D)
    with pytest.raises(EOFError):
        await editor.read()


async def test_history_is_that_of_earlier_sessions(keys: PipeInput, tmp_path: Path) -> None:
    history = HistoryFile(tmp_path / "history")
    history.add("before")
    keys.send_text(f"now{ENTER}")
    await _editor(keys, history).read()
    assert history.load() == ["before", "now"]
    assert [entry async for entry in KeptHistory(history).load()] == ["now", "before"]


async def test_without_a_file_nothing_is_remembered_from_earlier(keys: PipeInput) -> None:
    keys.send_text(f"now{ENTER}")
    assert await _editor(keys).read() == "now"
    assert [entry async for entry in KeptHistory(None).load()] == []


def _completions(text: str) -> list[str]:
    found = CommandCompleter().get_completions(Document(text), CompleteEvent())
    return [completion.text for completion in found]


async def test_commands_are_completed_at_the_start_only() -> None:
    assert _completions("/s") == ["system ", "save "]
    assert _completions("/re") == ["retry"]
    assert len(_completions("/")) > 5
    for text in ("s", "a /s", "/system be", "/s\n"):
        assert _completions(text) == []


@pytest.mark.parametrize("command", ["/save", "/load", "/save --force"])
async def test_files_are_completed_for_commands_that_take_one(tmp_path: Path, command: str) -> None:
    (tmp_path / "chat.json").touch()
    assert _completions(f"{command} {tmp_path}/ch") == ["at.json"]
