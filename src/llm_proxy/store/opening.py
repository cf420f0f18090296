"""Which engine a database needs. Drivers are imported here, when one is used."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from llm_proxy.database_url import DatabaseUrl
from llm_proxy.errors import StoreError
from llm_proxy.store.engines.connection import Database
from llm_proxy.store.engines.engine import Engine

__all__ = ["PATIENCE_S", "Database", "engine_of"]

PATIENCE_S: Final = 5.0  # how long locks, answers and connections are waited for


def engine_of(target: Path | DatabaseUrl, *, patience_s: float = PATIENCE_S) -> Engine:
    if isinstance(target, Path):
        from llm_proxy.store.engines.sqlite import SqliteEngine

        return SqliteEngine(target, patience_s=patience_s)
    try:
        if target.engine == "postgresql":
            from llm_proxy.store.engines.postgres import PostgresEngine

            return PostgresEngine(target, patience_s=patience_s)
        from llm_proxy.store.engines.mysql import MysqlEngine

        return MysqlEngine(target, patience_s=patience_s)
    except ImportError as exc:
        extra = "postgres" if target.engine == "postgresql" else "mysql"
        raise StoreError(
            f"the database {target} needs a driver that isn't installed ({exc.name}); "
            f"install it with: pip install 'llm-proxy[{extra}]'"
        ) from exc
