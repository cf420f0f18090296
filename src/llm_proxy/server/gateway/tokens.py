"""The tokens that a worker knows: snapshots by digest, loaded on first sight, and their use.

Nothing here waits: an unknown token is loaded by a task, and the request goes on when it is there.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol
from weakref import WeakValueDictionary

from llm_proxy.errors import Refusal, StoreError
from llm_proxy.grants import TokenGrant, TokenUse
from llm_proxy.secrets import is_well_formed_token
from llm_proxy.server.gateway.api import Upstream
from llm_proxy.server.gateway.breaker import Breaker

logger = logging.getLogger(__name__)

MAX_KNOWN: Final = 10_000
MAX_UNKNOWN: Final = 10_000  # digests remembered as no token's
UNKNOWN_FOR_S: Final = 5.0
MAX_LOADING: Final = 256  # look-ups under way, of all clients
MISSES_PER_ADDRESS: Final = 20  # look-ups that find nothing, a second and client address


class GrantSource(Protocol):
    async def load(self, digest: bytes) -> TokenGrant | None:
        """The grant behind a SHA-256 digest. Raises StoreError."""

    async def record(self, uses: Sequence[TokenUse]) -> None:
        """Adds what was counted. Raises StoreError."""


class TokenUsage:
    """What this worker counted of a token; outlives the snapshots of its grant, and is one for all
    of them: after a rotation with grace, two digests are of the same token."""

    __slots__ = ("__weakref__", "last_used_at", "recorded", "total")

    def __init__(self) -> None:
        self.total = 0  # requests admitted by this worker
        self.recorded = 0  # of these, what the store was told
        self.last_used_at = 0.0


class Credential:
    """A project's key for one api, as its requests need it."""

    __slots__ = ("breaker", "line")

    def __init__(self, line: bytes, breaker: Breaker) -> None:
        self.line = line
        self.breaker = breaker


class KnownToken:
    """A grant, with what the gateway keeps beside it."""

    __slots__ = ("allowance", "credentials", "grant", "usage")

    def __init__(self, grant: TokenGrant, usage: TokenUsage) -> None:
        self.grant = grant
        self.usage = usage
        self.credentials: dict[str, Credential] = {}  # by name of the api
        # How far `usage.total` may go: the snapshot's count holds what was recorded.
        self.allowance = (
            float("inf")
            if grant.max_requests is None
            else grant.max_requests - grant.request_count + usage.recorded
        )

    def add_credential(self, upstream: Upstream) -> Credential:
        """Raises Refusal when this token's project has no key for the api."""
        key = self.grant.upstream_keys.get(upstream.name)
        if key is None:
            raise Refusal(
                "no_upstream_key",
                f"The project of this token has no key for the api {upstream.name!r}; "
                "add one with `llm-proxy manage project update`.",
            )
        credential = Credential(upstream.credential_line(key), upstream.breaker(key))
        self.credentials[upstream.name] = credential
        return credential


Waiter = Callable[[KnownToken | Refusal], None]


class Tokens:
    def __init__(self, source: GrantSource) -> None:
        self._source = source
        self._loop = asyncio.get_running_loop()
        self._known: dict[bytes, KnownToken] = {}
        self._unknown: dict[bytes, float] = {}  # digest: until when, on the loop's clock
        self._usages: WeakValueDictionary[str, TokenUsage] = WeakValueDictionary()  # by token id
        self._unrecorded: dict[str, TokenUsage] = {}  # those of them that the store must be told
        self._store_turn = asyncio.Lock()  # so that no count changes while a grant is read
        self._loading: dict[bytes, asyncio.Task[None]] = {}
        self._waiters: dict[bytes, list[Waiter]] = {}
        self._generation = 0
        self._misses_second = 0
        self._misses: dict[str, int] = {}  # in that second, by client address

    @property
    def known_count(self) -> int:
        return len(self._known)

    def find(self, digest: bytes) -> KnownToken | None:
        return self._known.get(digest)

    def charge(self, token: KnownToken, now: float) -> None:
        """Counts a request; `now` is in Unix seconds."""
        usage = token.usage
        usage.total += 1
        usage.last_used_at = now
        self._unrecorded[token.grant.token_id] = usage

    def refund(self, token: KnownToken) -> None:
        """Takes back a charge for a request of which nothing left."""
        usage = token.usage
        usage.total -= 1
        self._unrecorded[token.grant.token_id] = usage

    def load(self, digest: bytes, client_ip: str, waiter: Waiter) -> None:
        """Calls `waiter` later, with the token or the reason why there is none."""
        if self._unknown.get(digest, 0.0) > self._loop.time():
            self._loop.call_soon(waiter, _no_such_token())
            return
        waiters = self._waiters.get(digest)
        if waiters is not None:
            waiters.append(waiter)
            return
        if len(self._loading) >= MAX_LOADING or self._guesses(client_ip):
            refusal = Refusal(
                "rate_limited",
                "Too many tokens that this server had not seen before; wait a second.",
                headers={"Retry-After": "1"},
            )
            self._loop.call_soon(waiter, refusal)
            return
        self._waiters[digest] = [waiter]
        self._loading[digest] = self._loop.create_task(self._load(digest, client_ip))

    def forget(self, digest: bytes, waiter: Waiter) -> None:
        """The client left before its token was loaded."""
        waiters = self._waiters.get(digest, [])
        if waiter in waiters:
            waiters.remove(waiter)

    def _guesses(self, client_ip: str) -> bool:
        """Whether this address asked for too many tokens that don't exist."""
        second = int(self._loop.time())
        if second != self._misses_second:
            self._misses_second = second
            self._misses.clear()
        return self._misses.get(client_ip, 0) >= MISSES_PER_ADDRESS

    async def _load(self, digest: bytes, client_ip: str) -> None:
        # Also what the waiters get should this task end in a way that nobody foresaw.
        outcome: KnownToken | Refusal = Refusal(
            "store_unavailable",
            "The token can't be checked now; try again soon.",
            headers={"Retry-After": "1"},
        )
        try:
            outcome = await self._load_current(digest)
            if isinstance(outcome, Refusal):
                self._misses[client_ip] = self._misses.get(client_ip, 0) + 1
        except StoreError as exc:
            logger.warning("a token could not be looked up: %s", exc)
        finally:
            del self._loading[digest]
            for waiter in self._waiters.pop(digest):
                waiter(outcome)

    async def _load_current(self, digest: bytes) -> KnownToken | Refusal:
        while True:
            generation = self._generation
            async with self._store_turn:
                await self._record()  # so that the stored count holds all that was admitted
                grant = await self._source.load(digest)
            if generation == self._generation:
                break  # else something was altered meanwhile: look again
        if grant is None:
            now, unknown = self._loop.time(), self._unknown
            while unknown and unknown[first := next(iter(unknown))] <= now:
                del unknown[first]
            if len(unknown) >= MAX_UNKNOWN:
                unknown.clear()
            unknown[digest] = now + UNKNOWN_FOR_S
            return _no_such_token()
        usage = self._usages.setdefault(grant.token_id, TokenUsage())
        token = KnownToken(grant, usage)
        if len(self._known) >= MAX_KNOWN:
            del self._known[next(iter(self._known))]
        self._known[digest] = token
        return token

    def invalidate(self, kind: str, identity: str) -> None:
        """From now on nothing is admitted on an older snapshot of this token or project."""
        self._generation += 1
        self._unknown.clear()
        for digest, token in tuple(self._known.items()):
            grant = token.grant
            if identity == (grant.token_id if kind == "token" else grant.project_id):
                del self._known[digest]

    async def record_usage(self) -> None:
        """Tells the store what was counted since the last time. Raises StoreError."""
        async with self._store_turn:
            await self._record()

    async def _record(self) -> None:
        counted = [(usage, usage.total, token_id) for token_id, usage in self._unrecorded.items()]
        if not counted:
            return
        await self._source.record(
            [
                TokenUse(
                    token_id=token_id,
                    requests=total - usage.recorded,
                    last_used_at=usage.last_used_at,
                )
                for usage, total, token_id in counted
            ]
        )
        for usage, total, token_id in counted:
            usage.recorded = total
            if usage.total == total:
                del self._unrecorded[token_id]

    async def close(self) -> None:
        """Waits for look-ups: they record use, and what is cut off there would be counted twice."""
        await asyncio.gather(*self._loading.values(), return_exceptions=True)


def _no_such_token() -> Refusal:
    return Refusal("invalid_token", "This token is unknown here; check that it was copied whole.")


def check_form(text: bytes) -> None:
    """Whether it can be a token at all: random strings are refused without a look-up."""
    if not is_well_formed_token(text):
        raise Refusal(
            "invalid_token", "This is not a token of this proxy; check that it was copied whole."
        )


def check_grant(token: KnownToken, now: float) -> None:
    """Active, not expired, project active, within its cap; in the order of the contract."""
    grant = token.grant
    if not grant.is_active:
        raise Refusal("token_revoked", "This token was revoked; ask for a new one.")
    if grant.expires_at is not None and now >= grant.expires_at:
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(grant.expires_at))
        raise Refusal(
            "token_expired",
            f"This token expired at {at}; ask for a new one.",
            details={"expires_at": at},
        )
    if not grant.project_is_active:
        raise Refusal("project_inactive", "The project of this token is deactivated.")


def check_quota(token: KnownToken) -> None:
    if token.usage.total >= token.allowance:
        raise Refusal(
            "token_quota_exhausted",
            f"This token was good for {token.grant.max_requests} requests, and they are used up; "
            "ask for a new one.",
            details={"max_requests": token.grant.max_requests},
        )
