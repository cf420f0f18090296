from __future__ import annotations

from pathlib import Path

import peewee
import pytest

from llm_proxy.errors import StoreError, StoreUnavailable
from llm_proxy.store.engines.sqlite import SqliteEngine


def test_failures_of_driver_and_library_are_translated_and_others_pass(tmp_path: Path) -> None:
    engine = SqliteEngine(tmp_path / "x.db", patience_s=1)
    database = engine.connect(create=True)
    with pytest.raises(StoreError, match=r"x\.db failed: no such table: t"), engine.translated():
        database.sql("SELECT * FROM t")
    with pytest.raises(StoreError, match="failed: odd"), engine.translated():
        raise peewee.PeeweeException("odd")
    with pytest.raises(ValueError, match="ours"), engine.translated():
        raise ValueError("ours")
    database.close()
    with pytest.raises(StoreUnavailable, match="is closed"), engine.translated():
        database.sql("SELECT 1")
