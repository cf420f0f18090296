from __future__ import annotations

import json
from pathlib import Path

import pytest

from llm_proxy.chat.command_effects import CommandEffects
from llm_proxy.chat.commands import COMMANDS
from llm_proxy.chat.conversation import Conversation
from llm_proxy.chat.interrupts import Interrupts
from llm_proxy.chat.session import Manner, Session
from tests.chat.fake_screen import FakeClient, FakeScreen

pytestmark = pytest.mark.anyio


class Room:
    """A session that commands are typed in."""

    def __init__(self, *replies: str) -> None:
        self.screen = FakeScreen()
        self.client = FakeClient(*replies)
        self.session = Session(
            self.client,
            Conversation(model="m"),
            Manner(),
            screen=self.screen,
            interrupts=Interrupts(),
        )
        self._effects = CommandEffects(self.session, self.screen)

    async def type(self, line: str) -> str:
        """What was shown last."""
        assert await self._effects.take(line)
        return self.screen.shown[-1][1] if self.screen.shown else ""

    async def leaves(self, line: str) -> bool:
        return not await self._effects.take(line)


async def test_lines_are_asked_without_blanks_around_and_blank_ones_are_not() -> None:
    room = Room("yes")
    await room.type("  \n ")
    await room.type(" /etc/passwd? ")
    assert [q.messages[-1].content for q in room.client.questions] == ["/etc/passwd?"]


@pytest.mark.parametrize("line", ["/exit", "/quit", "exit", "quit"])
async def test_exit_leaves(line: str) -> None:
    assert await Room().leaves(line)


async def test_model_is_shown_and_changed() -> None:
    room = Room()
    assert await room.type("/model") == "The model is m; /model NAME changes it."
    assert await room.type("/model gpt-x") == "The next question goes to gpt-x."
    assert room.session.conversation.model == "gpt-x"
    assert "has no blanks" in await room.type("/model two words")


async def test_system_prompt_is_shown_set_and_removed() -> None:
    room = Room()
    assert "There is no system prompt" in await room.type("/system")
    assert "is set" in await room.type("/system Be brief.")
    assert await room.type("/system") == "The system prompt is: Be brief."
    assert "is removed" in await room.type("/system -")
    assert room.session.conversation.system is None
    assert "There was no system prompt" in await room.type("/system -")


async def test_save_never_replaces_a_strangers_file_unasked(tmp_path: Path) -> None:
    room = Room("yes")
    path = tmp_path / "my chat.json"
    assert "nothing was said yet" in await room.type(f"/save {path}")
    await room.type("a")
    path.write_text("mine")
    assert await room.type(f"/save {path}") == f"{path} exists; `/save --force {path}` replaces it"
    assert path.read_text() == "mine"
    assert await room.type(f"/save --force {path}") == f"Replaced {path}: 1 question."
    assert await room.type(f"/save {path}") == f"Replaced {path}: 1 question."
    other = tmp_path / "new.json"
    assert await room.type(f"/save {other}") == f"Saved to {other}: 1 question."


@pytest.mark.parametrize("line", ["/save", "/save --force", "/load"])
async def test_file_must_be_named(line: str) -> None:
    assert "needs the name of a file" in await Room().type(line)


async def test_home_of_nobody_is_told() -> None:
    assert "can't be found" in await Room().type("/load ~nobody-here/x.json")


@pytest.mark.parametrize("line", ["/save", "/load"])
@pytest.mark.parametrize("name", ["x" * 300, "nul\0", "loop"])
async def test_impossible_name_ends_no_session(tmp_path: Path, line: str, name: str) -> None:
    (tmp_path / "loop").symlink_to("loop")
    room = Room("yes")
    await room.type("a")
    assert "can't be used" in await room.type(f"{line} {tmp_path / name}")


async def test_load_goes_on_with_what_was_saved(tmp_path: Path) -> None:
    path = tmp_path / "chat.json"
    room = Room("yes")
    await room.type("/system s")
    await room.type("a")
    await room.type(f"/save {path}")
    other = Room("more")
    assert await other.type(f"/load {path}") == f"Loaded {path}: 1 question, with m."
    await other.type("b")
    question = other.client.questions[0]
    assert [message.content for message in question.messages] == ["a", "yes", "b"]
    assert question.system == "s"


async def test_model_of_another_api_is_not_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "chat.json"
    room = Room("yes")
    await room.type("a")
    await room.type(f"/save {path}")
    document = json.loads(path.read_text()) | {"api": "anthropic", "model": "claude-x"}
    path.write_text(json.dumps(document))
    assert "it was with claude-x of anthropic" in await room.type(f"/load {path}")
    assert room.session.conversation.model == "m"


async def test_broken_file_is_a_sentence_and_changes_nothing(tmp_path: Path) -> None:
    room = Room("yes")
    await room.type("a")
    assert "can't be read" in await room.type(f"/load {tmp_path / 'no.json'}")
    assert len(room.session.conversation.turns) == 1


async def test_clear_forgets_all_but_the_system_prompt() -> None:
    room = Room("yes", "no")
    await room.type("a")
    assert await room.type("/clear") == "Forgot 1 question."
    await room.type("/system s")
    assert await room.type("/clear") == "Forgot 0 questions; the system prompt stays."
    assert await room.type("/retry") == "There is nothing to retry yet."


async def test_usage_and_help_are_tables() -> None:
    room = Room("yes")
    await room.type("a")
    await room.type("/usage")
    await room.type("/help")
    usage, help_rows = room.screen.tables
    assert ("tokens", "3 in, 2 out, 5 together") in usage
    assert {command.usage for command in COMMANDS} < {name for name, _ in help_rows}


async def test_unknown_command_is_no_question() -> None:
    room = Room()
    assert "did you mean /help?" in await room.type("/hepl")
    assert room.client.questions == []
