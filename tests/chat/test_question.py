from __future__ import annotations

import pytest

from llm_proxy.chat.question import Answer, Usage


def test_later_usage_completes_the_earlier() -> None:
    first = Usage(tokens_in=3, tokens_out=1)
    assert first.merged(Usage(tokens_out=9)) == Usage(tokens_in=3, tokens_out=9)
    assert first.merged(None) == first


def _answer(first: float | None, total: float, out: int | None = 10) -> Answer:
    return Answer(usage=Usage(tokens_out=out), finish=None, first_text_s=first, total_s=total)


def test_rate_counts_from_the_first_text() -> None:
    assert _answer(1.0, 3.0).tokens_per_second == 5
    assert _answer(None, 2.0).tokens_per_second == 5


@pytest.mark.parametrize("answer", [_answer(1.0, 1.0), _answer(0.5, 1.0, None), _answer(0.1, 1, 0)])
def test_without_tokens_or_time_there_is_no_rate(answer: Answer) -> None:
    assert answer.tokens_per_second is None
