from __future__ import annotations

import pytest

from llm_proxy.store.engines.placeholders import with_percent_s


@pytest.mark.parametrize(
    ("statement", "written"),
    [
        ("SELECT 1", "SELECT 1"),
        ("a = ? AND b = ?", "a = %s AND b = %s"),
        ("a = '?' AND b = ?", "a = '?' AND b = %s"),
        ("a = 'it''s ?' AND b = ?", "a = 'it''s ?' AND b = %s"),
        ('"odd?" = ? AND `odder?` = ?', '"odd?" = %s AND `odder?` = %s'),
        ("a LIKE 'x%' AND b % 2 = ?", "a LIKE 'x%%' AND b %% 2 = %s"),
    ],
)
def test_marks_outside_of_quotes_become_placeholders(statement: str, written: str) -> None:
    assert with_percent_s(statement) == written
