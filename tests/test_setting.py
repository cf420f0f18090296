from __future__ import annotations

import re

from llm_proxy.setting import SETTINGS


def test_every_default_is_what_its_own_rule_accepts_and_writes() -> None:
    for setting in SETTINGS:
        if setting.default is not None:
            value = setting.parse(setting.default)
            assert setting.parse(setting.write(value)) == value


def test_table_has_no_name_twice_and_every_row_is_documented() -> None:
    for column in ([s.field for s in SETTINGS], [s.env for s in SETTINGS]):
        assert len(set(column)) == len(column)
    assert all(re.fullmatch(r"[A-Z][^\n]*\.", setting.doc) for setting in SETTINGS)
