from __future__ import annotations

import pytest

from llm_proxy.chat.figures import Totals, figures_of, seconds
from llm_proxy.chat.question import Answer, Usage


def _answer(
    *,
    tokens: tuple[int | None, int | None] = (12, 30),
    finish: str | None = "stop",
    first: float | None = 0.5,
) -> Answer:
    usage = Usage(tokens_in=tokens[0], tokens_out=tokens[1])
    return Answer(usage=usage, finish=finish, first_text_s=first, total_s=2.0)


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        (_answer(), "12 tokens in, 30 out · first token 0.50 s · total 2.00 s · 20 tokens/s"),
        (_answer(first=None), "12 tokens in, 30 out · total 2.00 s · 15 tokens/s"),
        (_answer(tokens=(None, None)), "tokens unknown · first token 0.50 s · total 2.00 s"),
        (_answer(tokens=(1, None)), "1 token in, ? out · first token 0.50 s · total 2.00 s"),
        (
            _answer(tokens=(1234, None)),
            "1,234 tokens in, ? out · first token 0.50 s · total 2.00 s",
        ),
    ],
)
def test_line_has_what_is_known(answer: Answer, line: str) -> None:
    assert figures_of(answer) == line


@pytest.mark.parametrize(
    ("finish", "words"),
    [
        ("length", "cut at the limit of tokens"),
        ("max_tokens", "cut at the limit of tokens"),
        ("content_filter", "withheld by the provider's filter"),
        ("refusal", "withheld by the provider's filter"),
    ],
)
def test_answer_that_is_not_whole_says_so(finish: str, words: str) -> None:
    assert figures_of(_answer(finish=finish)).endswith(f" · {words}")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0012, "1.2 ms"),
        (0.0456, "46 ms"),
        (0.0996, "0.10 s"),
        (1.234, "1.23 s"),
        (12.34, "12.3 s"),
        (125, "2 min 05 s"),
        (7200, "2.0 h"),
        (119.7, "2 min 00 s"),
    ],
)
def test_times_have_few_digits(value: float, text: str) -> None:
    assert seconds(value) == text


def test_totals_sum_everything_and_tell_what_is_missing() -> None:
    totals = Totals()
    totals.add(_answer())
    totals.add(_answer(tokens=(None, None), first=1.5))
    totals.failures = 1
    totals.stopped = 2
    assert dict(totals.rows()) == {
        "answers": "2, 2 stopped, 1 failed",
        "tokens": "12 in, 30 out, 42 together, unknown for 1",
        "first token": "1.00 s on average, 1.50 s at most",
        "time": "4.00 s, 2.00 s an answer",
    }


def test_totals_of_nothing_are_short() -> None:
    assert dict(Totals().rows()) == {"answers": "0", "tokens": "0 in, 0 out, 0 together"}
