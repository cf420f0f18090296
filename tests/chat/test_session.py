from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable

import pytest

from llm_proxy.chat.conversation import Conversation, Turn
from llm_proxy.chat.interrupts import Interrupts
from llm_proxy.chat.question import Answer, Message, Question
from llm_proxy.chat.session import Asks, Manner, Session
from llm_proxy.errors import LLMProxyError
from tests.chat.fake_screen import FakeClient, FakeScreen

pytestmark = pytest.mark.anyio


def _session(client: Asks, interrupts: Interrupts | None = None) -> tuple[Session, FakeScreen]:
    screen = FakeScreen()
    session = Session(
        client,
        Conversation(model="m", system="s"),
        Manner(temperature=0.5, max_tokens=9, streams=False),
        screen=screen,
        interrupts=interrupts or Interrupts(),
    )
    return session, screen


async def test_question_carries_the_conversation_and_the_manner() -> None:
    client = FakeClient("one", "two")
    session, screen = _session(client)
    await session.ask("a")
    await session.ask("b")
    assert client.questions[1] == Question(
        model="m",
        messages=[Message("user", "a"), Message("assistant", "one"), Message("user", "b")],
        system="s",
        temperature=0.5,
        max_tokens=9,
        streams=False,
    )
    assert screen.last("figures").startswith("3 tokens in, 2 out")
    assert session.totals.answers == 2


async def test_failed_question_is_not_kept_and_can_be_retried() -> None:
    client = FakeClient(LLMProxyError("busy; try again"), "fine")
    session, screen = _session(client)
    await session.ask("a")
    assert session.conversation.turns == []
    assert screen.last("fail") == "busy; try again"
    await session.retry()
    assert session.conversation.turns == [Turn(asked="a", said="fine", model="m")]
    assert session.totals.failures == 1


async def test_retry_replaces_the_last_answer() -> None:
    client = FakeClient("one", "two")
    session, _ = _session(client)
    await session.ask("a")
    session.conversation.model = "other"
    await session.retry()
    assert session.conversation.turns == [Turn(asked="a", said="two", model="other")]
    assert [len(question.messages) for question in client.questions] == [1, 1]


async def test_retry_that_fails_keeps_the_earlier_answer() -> None:
    session, screen = _session(FakeClient("one", LLMProxyError("busy"), "three"))
    await session.ask("a")
    await session.retry()
    assert [turn.said for turn in session.conversation.turns] == ["one"]
    assert screen.last("tell") == "The earlier answer is kept."
    await session.retry()
    assert [turn.said for turn in session.conversation.turns] == ["three"]


async def test_retry_of_nothing_says_so() -> None:
    session, screen = _session(FakeClient())
    await session.retry()
    assert screen.last("tell") == "There is nothing to retry yet."


async def test_empty_answer_is_not_kept() -> None:
    session, screen = _session(FakeClient(""))
    await session.ask("a")
    assert session.conversation.turns == []
    assert "The answer was empty" in screen.last("tell")


class _Endless:
    """Says something, or nothing, and is then interrupted."""

    def __init__(self, said: str) -> None:
        self._said = said

    async def ask(self, question: Question, on_text: Callable[[str], None]) -> Answer:
        if self._said:
            on_text(self._said)
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.Event().wait()
        raise AssertionError("it goes on")


@pytest.mark.parametrize(
    ("said", "turns", "words"),
    [
        ("half", [Turn(asked="a", said="half", model="m", was_stopped=True)], "what came is kept"),
        ("", [], "nothing had come"),
    ],
)
async def test_ctrl_c_stops_the_answer_and_keeps_what_came(
    said: str, turns: list[Turn], words: str
) -> None:
    interrupts = Interrupts()
    session, screen = _session(_Endless(said), interrupts)
    with interrupts.installed():
        await session.ask("a")
    assert session.conversation.turns == turns
    assert words in screen.last("tell")
    assert session.totals.stopped == 1


async def test_end_of_the_program_is_no_stopped_answer() -> None:
    """Nothing takes the interruption for an answer, so it ends everything."""
    interrupts = Interrupts()
    begun = asyncio.Event()

    class Silent:
        async def ask(self, question: Question, on_text: Callable[[str], None]) -> Answer:
            begun.set()
            await asyncio.Event().wait()
            raise AssertionError("it goes on")

    session, _ = _session(Silent(), interrupts)
    task = asyncio.create_task(session.ask("a"))
    await begun.wait()
    interrupts.take(signal.SIGTERM, task)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert session.conversation.turns == []
