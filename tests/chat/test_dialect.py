from __future__ import annotations

from llm_proxy.chat.dialect import dialect_of


def test_each_api_has_its_own_words() -> None:
    assert dialect_of("openai").path == "/chat/completions"
    assert dialect_of("anthropic").path == "/messages"


def test_what_one_client_learned_is_its_own() -> None:
    assert dialect_of("openai") is not dialect_of("openai")
