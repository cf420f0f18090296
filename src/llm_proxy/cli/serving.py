"""Whether the server of a home uses a database."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from llm_proxy.errors import Conflict
from llm_proxy.settings import load_settings

if TYPE_CHECKING:
    from llm_proxy.database_url import DatabaseUrl
    from llm_proxy.home import Home


def refuse_while_serving(home: Home, database: Path | DatabaseUrl) -> None:
    """Its workers would go on with what is no more."""
    from llm_proxy.database_url import write_database
    from llm_proxy.server.pidfile import running_pid
    from llm_proxy.server.state import read_state

    state = read_state(home.state_file)
    if state is None or state.pid != (pid := running_pid(home.pid_file)):
        return
    served = state.flags.get("database_path") or write_database(load_settings({}).database)
    if served == write_database(database):
        raise Conflict(
            f"the server with pid {pid} uses {database}; stop it first: llm-proxy server stop"
        )
