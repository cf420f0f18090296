from __future__ import annotations

from llm_proxy.chat.conversation import Conversation, Turn
from llm_proxy.chat.question import Message


def test_messages_take_turns_and_end_with_what_is_asked() -> None:
    conversation = Conversation(model="m", turns=[Turn(asked="a", said="b", model="m")])
    assert conversation.messages("c") == [
        Message("user", "a"),
        Message("assistant", "b"),
        Message("user", "c"),
    ]
