"""From settings to an authority over limits of scope fleet, and what a missing Redis means then."""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack

from llm_proxy.errors import LLMProxyError, Unreachable
from llm_proxy.redis_address import redis_address
from llm_proxy.server.fleet.authority import FleetAuthority
from llm_proxy.server.limit_authority import Authority
from llm_proxy.settings import Settings

logger = logging.getLogger(__name__)


async def start_fleet(settings: Settings, host: Authority, stack: AsyncExitStack) -> FleetAuthority:
    """`host` keeps the rates while Redis is away, if REDIS_FAIL says so."""
    address = redis_address(settings)
    assert address is not None  # the configuration was checked
    is_fail_open = settings.redis_fail == "open"
    fleet = FleetAuthority(
        address, timeout_s=settings.redis_timeout, fallback=host if is_fail_open else None
    )
    stack.push_async_callback(fleet.close)
    try:
        await fleet.start()
    except Unreachable as exc:
        if not is_fail_open:
            raise LLMProxyError(
                f"{exc}; start it, or let REDIS_FAIL=open keep limits on each host until it answers"
            ) from exc
        logger.warning("%s: until it can, limits are kept on this host alone", exc)
    return fleet
