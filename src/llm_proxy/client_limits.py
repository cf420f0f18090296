"""How long a client may take, and how many requests of clients one worker runs at a time."""

from __future__ import annotations

import msgspec

from llm_proxy.errors import ConfigError


class ClientLimits(msgspec.Struct, frozen=True, kw_only=True):
    head_timeout: float = 30.0  # seconds, all of them
    body_timeout: float = 60.0  # for 1 KiB of a body, or its end
    keep_alive_timeout: float = 120.0
    write_timeout: float = 300.0  # of a client that reads nothing
    max_concurrent_requests: int = 0  # of this worker; 0: unlimited


def share_of(total: int, *, workers: int, slot: int) -> int:
    """The part of `MAX_CONCURRENT_REQUESTS` that the worker in `slot` (from 0) may run.

    The parts add up to the total exactly. 0 is no limit, for everyone.
    """
    if total and total < workers:
        raise ConfigError(
            f"MAX_CONCURRENT_REQUESTS must be 0 or at least LLM_PROXY_WORKERS ({workers}), "
            f"not {total}: each worker needs a share of its own"
        )
    share, rest = divmod(total, workers)
    return share + (slot < rest)
