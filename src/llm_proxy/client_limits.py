"""How long a client may take."""

from __future__ import annotations

import msgspec


class ClientLimits(msgspec.Struct, frozen=True, kw_only=True):
    head_timeout: float = 30.0  # seconds, all of them
    body_timeout: float = 60.0  # for 1 KiB of a body, or its end
    keep_alive_timeout: float = 120.0
    write_timeout: float = 300.0  # of a client that reads nothing
