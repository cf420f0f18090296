from __future__ import annotations

import pytest

from llm_proxy.chat.conversation import Conversation
from llm_proxy.chat.one_shot import LARGEST_QUESTION, ask_once, decode_question
from llm_proxy.chat.session import Manner
from llm_proxy.errors import LLMProxyError
from tests.chat.fake_screen import FakeClient, FakeScreen


def test_question_is_utf_8_without_blanks_around() -> None:
    assert decode_question("\ufeff Grüße\nan alle\n".encode()) == "Grüße\nan alle"


@pytest.mark.parametrize(
    ("raw", "words"),
    [(b"ab\xff", "isn't UTF-8 at byte 2"), (b"x" * (LARGEST_QUESTION + 1), "larger than 32 MiB")],
)
def test_what_cannot_be_asked_says_why(raw: bytes, words: str) -> None:
    with pytest.raises(LLMProxyError, match=words):
        decode_question(raw)


@pytest.mark.anyio
async def test_answer_is_all_that_is_shown() -> None:
    screen, client = FakeScreen(), FakeClient("yes")
    await ask_once(client, "a", Conversation(model="m", system="s"), Manner(max_tokens=5), screen)
    assert screen.shown == [("answer", "yes")]
    question = client.questions[0]
    assert (question.model, question.system, question.max_tokens) == ("m", "s", 5)


@pytest.mark.anyio
async def test_empty_answer_is_a_failure() -> None:
    with pytest.raises(LLMProxyError, match="the answer was empty"):
        await ask_once(FakeClient(""), "a", Conversation(model="m"), Manner(), FakeScreen())


@pytest.mark.anyio
async def test_failure_comes_after_what_was_shown() -> None:
    screen = FakeScreen()
    with pytest.raises(LLMProxyError, match="busy"):
        await ask_once(
            FakeClient(LLMProxyError("busy")), "a", Conversation(model="m"), Manner(), screen
        )
    assert screen.shown == [("answer", "half an ")]
