"""Statements of the schema in MySQL's words."""

from __future__ import annotations

import re

# MySQL wants a length for what it indexes, and knows none for long texts.
_LONG = (
    *("description", "metadata", "encrypted", "value", "scope"),
    *("path", "user_agent", "reason", "details"),
)
_LONG_COLUMN = re.compile(rf"\b({'|'.join(_LONG)}) TEXT\b")
_TEXT = re.compile(r"(?<!LONG)TEXT\b")
# A column's own REFERENCES is read and forgotten by MySQL before 9.
_REFERENCE = re.compile(
    r"^(?P<indent>\s*)(?P<column>\w+)(?P<type>[^\n]*?)"
    r"(?P<reference> REFERENCES \w+ \(\w+\)(?: ON DELETE \w+)?)(?P<comma>,?)$",
    re.MULTILINE,
)
_MAKES = (
    ("tables", re.compile(r"(?:CREATE|DROP) TABLE (?P<table>(?P<name>\w+))")),
    ("statistics", re.compile(r"CREATE (?:UNIQUE )?INDEX (?P<name>\w+) ON (?P<table>\w+)")),
    ("columns", re.compile(r"ALTER TABLE (?P<table>\w+) (?:ADD|DROP) COLUMN (?P<name>\w+)")),
)


def what_it_makes(statement: str) -> tuple[str, str, str] | None:
    """Or removes: the view of information_schema that knows it, its table and its name."""
    for view, pattern in _MAKES:
        if found := pattern.match(statement):
            return view, found["table"], found["name"]
    return None


def in_mysql_words(statement: str, *, collation: str) -> str:
    text = f"CHARACTER SET utf8mb4 COLLATE {collation}"
    statement = _with_foreign_keys(statement)
    statement = statement.replace(
        "INTEGER PRIMARY KEY AUTOINCREMENT", "BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY"
    )
    statement = re.sub(r"\bINTEGER\b", "BIGINT", statement)
    statement = _LONG_COLUMN.sub(r"\1 LONGTEXT", statement)
    statement = statement.replace("LONGTEXT", f"LONGTEXT {text}")
    return _TEXT.sub(f"VARCHAR(255) {text}", statement)


def _with_foreign_keys(statement: str) -> str:
    keys = [
        f"FOREIGN KEY ({found['column']}){found['reference']}"
        for found in _REFERENCE.finditer(statement)
    ]
    if not keys:
        return statement
    bare = _REFERENCE.sub(r"\g<indent>\g<column>\g<type>\g<comma>", statement)
    body, _, _ = bare.rstrip().rpartition(")")
    return f"{body.rstrip()},\n{', '.join(keys)})"
