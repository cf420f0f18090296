"""Opens connections to one origin: over all its addresses, through a proxy, with TLS."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, TypeVar

from llm_proxy.http1.connect_tunnel import open_tunnel
from llm_proxy.http1.connection import UpstreamError
from llm_proxy.http1.eyeballs import first_connected, interleave
from llm_proxy.http1.opening import Opening
from llm_proxy.http1.origin import Origin
from llm_proxy.http1.resolver import EXHAUSTED, ResolveError, Resolver

STAGGER_S: Final = 0.25  # RFC 8305: the next address is tried beside one that is silent so long
LATELY_S: Final = 30.0  # for so long an address that failed, or was silent, comes last
MIN_HANDSHAKE_S: Final = 2.0  # what one address gets for TLS at least while others are left
_UPSTREAM: Final = "the upstream"
_EXHAUSTED_HERE: Final = (
    "This server has no file descriptor or memory left for a connection to the upstream; "
    "try again soon."
)

P = TypeVar("P", bound=asyncio.Protocol)


class Dialer:
    def __init__(
        self,
        origin: Origin,
        *,
        timeout_s: float,
        resolver: Resolver,
        lately_s: float = LATELY_S,
        min_handshake_s: float = MIN_HANDSHAKE_S,
    ) -> None:
        """`timeout_s` is for everything until the connection is ready, over all addresses."""
        self._origin = origin
        self._timeout_s = timeout_s
        self._resolver = resolver
        self._lately_s = lately_s
        self._min_handshake_s = min_handshake_s
        self._loop = asyncio.get_running_loop()
        self._hop = origin.proxy or origin  # where TCP goes
        self._hop_name = _UPSTREAM if origin.proxy is None else f"the proxy {origin.proxy}"
        self._bad: dict[str, float] = {}  # addresses that failed, and when

    async def dial(self, factory: Callable[[], P]) -> P:
        """The protocol of a connection that is ready for a request. Raises UpstreamError."""
        is_resolved = self._origin.unix_path is not None
        try:
            async with asyncio.timeout(self._timeout_s) as limit:
                if self._origin.unix_path is not None:
                    return await self._dial_unix(self._origin.unix_path, factory)
                with _explained(self._hop_name):
                    addresses = await self._resolver.resolve(self._hop.host)
                is_resolved = True
                return await self._dial_any(addresses, factory, limit.when() or 0.0)
        except TimeoutError:
            if not is_resolved:
                what = f"Resolving the name of {self._hop_name}"
            elif self._origin.proxy is None:
                what = "Connecting to the upstream"
            else:
                what = f"Connecting through {self._hop_name}"
            raise _failure(f"{what} took longer than {self._timeout_s:g} s.") from None

    async def _dial_unix(self, path: str, factory: Callable[[], P]) -> P:
        with _explained(_UPSTREAM):
            _, protocol = await self._loop.create_unix_connection(factory, path)
        return protocol

    async def _dial_any(
        self, addresses: Sequence[str], factory: Callable[[], P], deadline: float
    ) -> P:
        left = self._in_order(addresses)
        stagger_s = min(STAGGER_S, self._timeout_s / (2 * len(left)))
        failure: UpstreamError | None = None
        while left:
            try:
                with _explained(self._hop_name):
                    address, opening = await first_connected(
                        left, self._connect, stagger_s=stagger_s
                    )
            except UpstreamError as exc:
                if failure is None:
                    raise
                raise failure from exc  # an address that could be connected to tells more
            try:
                return await self._hand_over(opening, factory, self._share(deadline, len(left)))
            except UpstreamError as exc:
                self._bad[address] = self._loop.time()
                failure = exc
        assert failure is not None  # there is at least one address
        raise failure

    def _in_order(self, addresses: Sequence[str]) -> list[str]:
        earliest = self._loop.time() - self._lately_s
        self._bad = {one: when for one, when in self._bad.items() if when > earliest}
        return sorted(interleave(addresses), key=lambda one: self._bad.get(one, 0.0))

    def _share(self, deadline: float, others: int) -> float | None:
        """Seconds for the handshakes with one address, so that the others get their turn."""
        if not others:
            return None
        return max(self._min_handshake_s, (deadline - self._loop.time()) / (others + 1))

    async def _connect(self, address: str) -> Opening:
        started_at = self._loop.time()
        try:
            _, opening = await self._loop.create_connection(Opening, address, self._hop.port)
        except OSError:
            self._bad[address] = self._loop.time()
            raise
        except asyncio.CancelledError:
            if self._loop.time() - started_at >= STAGGER_S:
                self._bad[address] = self._loop.time()
            raise
        self._bad.pop(address, None)
        return opening

    async def _hand_over(
        self, opening: Opening, factory: Callable[[], P], limit_s: float | None
    ) -> P:
        try:
            with _explained(_UPSTREAM):
                async with asyncio.timeout(limit_s):
                    await self._shake_hands(opening)
                protocol = factory()
                opening.hand_over(protocol)
        except BaseException:
            opening.abort()
            raise
        return protocol

    async def _shake_hands(self, opening: Opening) -> None:
        origin, proxy = self._origin, self._origin.proxy
        if proxy is not None:
            with _explained(self._hop_name):
                if proxy.tls is not None:
                    await opening.start_tls(proxy.tls, proxy.host)
                await open_tunnel(opening, origin, proxy)
        if origin.tls is not None:
            await opening.start_tls(origin.tls, origin.host)


@contextmanager
def _explained(peer: str) -> Iterator[None]:
    """What the system says of `peer` becomes a sentence for whoever sent the request."""
    try:
        yield
    except (OSError, UnicodeError) as exc:  # ssl.SSLError is an OSError
        if _is_ours(exc):
            raise UpstreamError("overloaded", _EXHAUSTED_HERE) from exc
        raise _failure(_explain(exc, peer)) from exc


def _is_ours(exc: Exception) -> bool:
    """Whether it says nothing about the peer, which must not be blamed then."""
    if isinstance(exc, ResolveError):
        return exc.is_ours
    return isinstance(exc, OSError) and exc.errno in EXHAUSTED


def _failure(message: str) -> UpstreamError:
    return UpstreamError("upstream_unreachable", message)


def _explain(exc: Exception, peer: str) -> str:
    subject = peer[0].upper() + peer[1:]
    if isinstance(exc, ResolveError):
        return f"{subject}'s host name could not be resolved."
    if isinstance(exc, ssl.SSLCertVerificationError):
        return f"{subject}'s certificate is not trusted: {exc.verify_message}."
    if isinstance(exc, ssl.SSLError):
        return f"TLS with {peer} failed: {exc.reason or 'handshake refused'}."
    if isinstance(exc, TimeoutError):
        return f"{subject} did not answer in time."
    if isinstance(exc, ConnectionRefusedError):
        return f"{subject} refused the connection."
    return f"{subject} could not be reached."
