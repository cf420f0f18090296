from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.benchmark.made_text import made_text


@given(st.integers(min_value=0, max_value=200_000), st.text(max_size=5))
def test_text_has_as_many_words_as_are_asked_for(words: int, seed: str) -> None:
    assert len(made_text(words, seed).split()) == words


def test_seed_decides_and_others_differ_from_the_beginning() -> None:
    assert made_text(50, "a") == made_text(50, "a")
    begins = {made_text(50, f"{number}")[:40] for number in range(100)}
    assert len(begins) == 100
