"""Names to addresses: looked up off the loop, shared by all who ask, and remembered."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import logging
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

logger = logging.getLogger(__name__)

FRESH_S: Final = 30.0  # an answer is used this long before it is asked for again
FAILED_S: Final = 1.0  # and a failure is believed this long
PATIENCE_S: Final = 1.0  # for a new answer while there is an old one
# What the system says when it is this machine that has no descriptor or memory left.
EXHAUSTED: Final = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))

Lookup = Callable[[str], Sequence[str]]


class ResolveError(OSError):
    """A name has no addresses, as far as can be told."""

    def __init__(self, reason: str, *, is_ours: bool = False) -> None:
        """`is_ours`: this machine had no means to ask, so it says nothing about the name."""
        super().__init__(reason)
        self.is_ours = is_ours


def look_up(host: str) -> list[str]:
    """Addresses in the system's order of preference. Blocks; raises OSError or UnicodeError."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(_text_of(entry[4]) for entry in found))


def _text_of(address: tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]) -> str:
    host = str(address[0])
    if len(address) == 4 and address[3] and "%" not in host:
        return f"{host}%{address[3]}"  # link-local: only good on that interface
    return host


def _addresses_of_literal(host: str) -> list[str]:
    """Of an IP address in any notation; empty for a name. Asks nobody, so it doesn't block."""
    with contextlib.suppress(ValueError):
        return [str(ipaddress.ip_address(host))]  # this takes no descriptor, as the next may
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return []
    return [_text_of(found[0][4])]


class _Name:
    __slots__ = (
        "addresses",
        "asked",
        "good_until",
        "is_failure_ours",
        "is_outage_told",
        "reason",
    )

    def __init__(self) -> None:
        self.addresses: tuple[str, ...] = ()  # of the last good answer
        self.reason = ""  # of the last failure
        self.is_failure_ours = False
        self.good_until = float("-inf")  # addresses or, when it failed, reason
        self.asked: asyncio.Future[None] | None = None  # a look-up under way
        self.is_outage_told = False


class Resolver:
    """One look-up per name at a time, each in a daemon thread of its own: neither can a hung
    resolver pile up threads, nor keep the process from ending. The names are those of the
    configuration, so there are few."""

    def __init__(
        self,
        lookup: Lookup = look_up,
        *,
        clock: Callable[[], float] = time.monotonic,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._lookup = lookup
        self._clock = clock
        self._patience_s = patience_s
        self._names: dict[str, _Name] = {}

    async def resolve(self, host: str) -> tuple[str, ...]:
        """At least one address, or raises ResolveError; waits as long as the look-up takes, but
        not long when an earlier answer can do. Waiters may be cancelled; the look-up goes on."""
        if literal := _addresses_of_literal(host):
            return tuple(literal)
        name = self._names.get(host)
        if name is None:
            name = self._names[host] = _Name()
        if self._clock() >= name.good_until:
            if name.asked is None:
                self._ask(host, name)
            if name.asked is not None:
                await asyncio.wait(
                    [name.asked], timeout=self._patience_s if name.addresses else None
                )
        if not name.addresses:
            raise ResolveError(name.reason, is_ours=name.is_failure_ours)
        return name.addresses

    def _ask(self, host: str, name: _Name) -> None:
        loop = asyncio.get_running_loop()
        name.asked = loop.create_future()
        thread = threading.Thread(
            target=self._run, args=(loop, host, name), name=f"look-up of {host}", daemon=True
        )
        try:
            thread.start()
        except RuntimeError as exc:  # no thread to be had
            name.is_failure_ours = True
            self._settle(host, name, (), str(exc))

    def _run(self, loop: asyncio.AbstractEventLoop, host: str, name: _Name) -> None:
        addresses: tuple[str, ...] = ()
        reason, is_ours = "it has no addresses", False
        try:
            addresses = tuple(self._lookup(host))
        except OSError as exc:
            reason = exc.strerror or type(exc).__name__
            is_ours = exc.errno in EXHAUSTED
        except UnicodeError:
            reason = "it can't be a host name"
        name.is_failure_ours = is_ours
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(self._settle, host, name, addresses, reason)

    def _settle(self, host: str, name: _Name, addresses: tuple[str, ...], reason: str) -> None:
        asked, name.asked = name.asked, None
        if addresses:
            name.addresses = addresses
            name.good_until = self._clock() + FRESH_S
            name.is_outage_told = False
        else:
            name.reason = reason
            name.good_until = self._clock() + FAILED_S
            if name.addresses and not name.is_outage_told:
                name.is_outage_told = True
                logger.warning(
                    "%s can't be resolved any more (%s): its last addresses are used", host, reason
                )
        if asked is not None and not asked.done():
            asked.set_result(None)
