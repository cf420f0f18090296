from __future__ import annotations

import pytest

from llm_proxy.store.engines.mysql_schema import in_mysql_words, what_it_makes

TEXT = "CHARACTER SET utf8mb4 COLLATE c"


def test_words_are_those_of_mysql() -> None:
    statement = """CREATE TABLE t (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    other TEXT NOT NULL REFERENCES others (id) ON DELETE CASCADE,
    metadata TEXT,
    notes LONGTEXT,
    number INTEGER
)"""
    assert (
        in_mysql_words(statement, collation="c")
        == f"""CREATE TABLE t (
    id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    other VARCHAR(255) {TEXT} NOT NULL,
    metadata LONGTEXT {TEXT},
    notes LONGTEXT {TEXT},
    number BIGINT,
FOREIGN KEY (other) REFERENCES others (id) ON DELETE CASCADE)"""
    )


@pytest.mark.parametrize(
    ("statement", "made"),
    [
        ("CREATE TABLE t (a TEXT)", ("tables", "t", "t")),
        ("DROP TABLE t", ("tables", "t", "t")),
        ("CREATE INDEX i ON t (a)", ("statistics", "t", "i")),
        ("ALTER TABLE t ADD COLUMN a TEXT", ("columns", "t", "a")),
        ("ALTER TABLE t DROP COLUMN a", ("columns", "t", "a")),
        ("UPDATE t SET a = 1", None),
    ],
)
def test_what_a_statement_makes_is_known(statement: str, made: tuple[str, str, str] | None) -> None:
    assert what_it_makes(statement) == made
