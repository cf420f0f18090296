from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from llm_proxy.benchmark.mock_text import compose, count_tokens


def test_the_answer_echoes_the_prompt_and_goes_on() -> None:
    text = str(compose("Where is my cat?"))
    assert text.startswith('You said: "Where is my cat?".')
    assert count_tokens(text) > 12


def test_a_long_prompt_is_echoed_in_part() -> None:
    text = str(compose("word " * 5000))
    assert text.startswith('You said: "' + "word " * 11 + 'word…".')
    assert count_tokens(text) < 100


def test_a_silent_prompt_is_answered_too() -> None:
    assert str(compose(" \n")).startswith("You said nothing.")


def test_the_same_prompt_gets_the_same_answer_and_another_one_another() -> None:
    assert compose("one") == compose("one")
    assert compose("one") != compose("two")


@settings(deadline=None)
@given(st.text(), st.integers(1, 200), st.none() | st.integers(1, 200))
def test_an_answer_has_as_many_tokens_as_pieces_and_keeps_the_limit(
    prompt: str, limit: int, wanted: int | None
) -> None:
    text = compose(prompt, limit=limit, wanted=wanted)
    assert count_tokens(str(text)) == len(text.pieces) <= limit
    if wanted is not None:
        assert len(text.pieces) == min(wanted, limit)
        assert text.was_cut is (wanted > limit)


def test_a_limit_that_is_not_reached_cuts_nothing() -> None:
    assert not compose("hello", limit=500).was_cut
    assert compose("hello", limit=3).was_cut
