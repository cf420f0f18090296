from __future__ import annotations

import pytest

from llm_proxy.cli.main import run
from llm_proxy.cli.wrong_values import explained


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["manage", "token", "generate", "--max-requests", "-1"], "must be 0 or more, not '-1'"),
        (["manage", "token", "generate", "--max-requests", "x"], "must be a whole number, not 'x'"),
        (["manage", "token", "update", "id", "--max-requests", "1.5"], "whole number, not '1.5'"),
        (["setup", "--max-requests", "0"], "must be 1 or more, not '0'"),
        (["server", "stop", "--timeout", "-0.5"], "must be 0 or more, not '-0.5'"),
        (["server", "stop", "--timeout", "soon"], "must be a number, not 'soon'"),
        (["server", "restart", "--timeout", "inf"], "must be 86400 or less, not 'inf'"),
        (["openai", "chat", "--temperature", "3"], "must be 2 or less, not '3'"),
        (["db", "rollback", "--steps", "9" * 5000], "digits, not '999"),
    ],
)
def test_a_wrong_number_is_told_with_its_option_rule_and_value(
    capsys: pytest.CaptureFixture[str], arguments: list[str], problem: str
) -> None:
    assert run(arguments) == 2
    told = capsys.readouterr().err
    assert problem in told
    assert f"'{next(word for word in arguments if word.startswith('--'))}'" in told
    assert len(told) < 500


@pytest.mark.parametrize("cause", [None, ValueError("other")])
def test_what_is_no_wrong_number_is_left_to_typer(cause: Exception | None) -> None:
    assert explained(cause) is None
