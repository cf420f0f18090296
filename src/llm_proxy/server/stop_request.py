"""How long a stop may take, told by `server stop` to the server it is about to signal.

A signal carries no number. The file lies in the private folder of the running server, and is taken
away by who reads it, so it counts for one signal only.
"""

from __future__ import annotations

import math
from contextlib import suppress
from pathlib import Path

from llm_proxy.errors import ConfigError
from llm_proxy.home import write_private
from llm_proxy.server.runtime_folder import STOP_REQUEST


def leave_stop_request(runtime_folder: Path, timeout_s: float) -> bool:
    """Whether it could be left."""
    try:
        write_private(runtime_folder / STOP_REQUEST, f"{timeout_s!r}\n")
    except ConfigError:
        return False
    return True


def take_stop_request(runtime_folder: Path) -> float | None:
    """The seconds that were asked for; None when nobody said."""
    path = runtime_folder / STOP_REQUEST
    try:
        timeout_s = float(path.read_text("ascii"))
    except (OSError, ValueError):
        return None
    finally:
        with suppress(OSError):
            path.unlink()
    return timeout_s if 0 <= timeout_s < math.inf else None
