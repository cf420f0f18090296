from __future__ import annotations

import pytest

from llm_proxy.store.database import Store


def test_a_plain_statement_is_the_same_on_every_engine(store: Store) -> None:
    with store.writing() as database:
        database.sql("INSERT INTO meta (name, value) VALUES (?, ?)", ("50 %?", "é 😀"))
        assert database.sql("UPDATE meta SET value = ? WHERE name = '50 %?'", ("%s",)) == []
        assert database.sql("SELECT value FROM meta WHERE name LIKE '50 _?'") == [("%s",)]
        assert database.sql("SELECT name FROM meta WHERE value = ?", ("%s",)) == [("50 %?",)]


def test_ids_are_never_given_twice(store: Store) -> None:
    with store.writing() as database:
        database.sql("INSERT INTO changes (kind, object_id, at) VALUES ('token', 'a', 't')")
        highest = database.highest_id("changes")
        assert highest >= 1
        database.sql("DELETE FROM changes")
        database.sql("INSERT INTO changes (kind, object_id, at) VALUES ('token', 'b', 't')")
        assert database.sql("SELECT id FROM changes") == [(highest + 1,)]


def test_booleans_come_back_as_such_or_as_numbers_that_are_equal(store: Store) -> None:
    with store.writing() as database:
        database.sql(
            "INSERT INTO projects (id, name, description, metadata, is_active, created_at, "
            "updated_at) VALUES ('i', 'n', '', '{}', ?, 't', 't')",
            (True,),
        )
        assert database.sql("SELECT is_active FROM projects WHERE is_active") == [(True,)]
        with pytest.raises(Exception, match="(?i)boolean|constraint|check"):
            database.sql("UPDATE projects SET is_active = 2")
