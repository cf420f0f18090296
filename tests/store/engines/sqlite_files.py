"""Files made by others."""

from __future__ import annotations

import sqlite3
from pathlib import Path


def sqlite_file(path: Path, *statements: str) -> Path:
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()
    return path
