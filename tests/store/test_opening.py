from __future__ import annotations

import subprocess
import sys

import pytest

from llm_proxy.database_url import parse_database
from llm_proxy.store.engines.mysql import MysqlEngine
from llm_proxy.store.engines.postgres import PostgresEngine
from llm_proxy.store.engines.sqlite import SqliteEngine
from llm_proxy.store.opening import engine_of


@pytest.mark.parametrize(
    ("text", "engine", "is_shared"),
    [
        ("/x.db", SqliteEngine, False),
        ("postgresql://u@h/d", PostgresEngine, True),
        ("mysql://u@h/d", MysqlEngine, True),
    ],
)
def test_a_database_is_named_after_what_it_is(text: str, engine: type, is_shared: bool) -> None:
    found = engine_of(parse_database(text))
    assert type(found) is engine
    assert (found.is_shared, found.shown) == (is_shared, text)


_WITHOUT_DRIVERS = """
import sys
from llm_proxy.database_url import parse_database
from llm_proxy.errors import StoreError
from llm_proxy.store.opening import engine_of

sys.modules["psycopg"] = sys.modules["pymysql"] = None
for text in ("postgresql://u:secret@h/d", "mysql://u:secret@h/d"):
    try:
        engine_of(parse_database(text))
    except StoreError as exc:
        print(exc)
"""


def test_a_driver_that_is_not_installed_is_named_with_what_installs_it() -> None:
    command = [sys.executable, "-c", _WITHOUT_DRIVERS]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "pip install 'llm-proxy[postgres]'" in shown
    assert "pip install 'llm-proxy[mysql]'" in shown
    assert "secret" not in shown
