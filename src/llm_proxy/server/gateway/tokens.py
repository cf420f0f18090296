"""The tokens that a worker knows: snapshots of their grants by digest, loaded on first sight.

Nothing here waits: an unknown token is loaded by a task, and the request goes on when it is there.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final, Protocol

from llm_proxy.errors import Refusal, StoreError
from llm_proxy.grants import TokenGrant
from llm_proxy.secrets import is_well_formed_token, may_be_legacy_token
from llm_proxy.server.gateway.accounts import Account, Accounts, gone, store_unavailable
from llm_proxy.server.gateway.api import Upstream
from llm_proxy.server.gateway.breaker import Breaker
from llm_proxy.server.gateway.guesses import Guesses
from llm_proxy.server.gateway.scope import ScopeCheck
from llm_proxy.server.gateway.validity import check_times, format_time, is_idle

logger = logging.getLogger(__name__)

MAX_KNOWN: Final = 10_000
MAX_UNKNOWN: Final = 10_000  # digests remembered as no token's
UNKNOWN_FOR_S: Final = 5.0
MAX_ALTERED: Final = 1000  # tokens and projects kept apart while others are looked up
MAX_LOADING: Final = 256  # look-ups under way, of all clients
FRESH_S: Final = 1.0  # others' use of a token is in the store by then

_NEVER: Final = float("inf")


class GrantSource(Protocol):
    async def load(self, digest: bytes) -> TokenGrant | None:
        """The grant behind a SHA-256 digest. Raises StoreError."""


class Credential:
    """A project's key for one api, as its requests need it."""

    __slots__ = ("breaker", "line")

    def __init__(self, line: bytes, breaker: Breaker) -> None:
        self.line = line
        self.breaker = breaker


class KnownToken:
    """A grant, with what the gateway keeps beside it."""

    __slots__ = (
        "account",
        "credentials",
        "expiry_line",
        "good_from",
        "good_until",
        "grant",
        "limits",
        "loaded_at",
        "scope",
        "warns_at",
    )

    def __init__(self, grant: TokenGrant, account: Account, loaded_at: float) -> None:
        self.grant = grant
        self.account = account
        self.loaded_at = loaded_at  # on the loop's clock
        self.scope = ScopeCheck(grant.scope) if grant.scope else None
        self.warns_at = _NEVER if grant.warns_at is None else grant.warns_at
        # Between these nothing about it needs a closer look; Unix seconds.
        is_plain = grant.is_active and grant.project_is_active and grant.idle_timeout is None
        self.good_from = grant.not_before or 0.0
        self.good_until = (grant.expires_at or _NEVER) if is_plain else 0.0
        at = "" if grant.expires_at is None else format_time(grant.expires_at)
        self.expiry_line = f"LLM-Proxy-Token-Expires: {at}\r\n".encode()
        self.limits: object | None = None  # the limiter's
        self.credentials: dict[str, Credential] = {}  # by name of the api

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
    def __init__(
        self, source: GrantSource, accounts: Accounts, *, knows_legacy_tokens: bool = False
    ) -> None:
        """With `knows_legacy_tokens` those of the older program are looked up too."""
        self._source = source
        self.accounts = accounts
        self._knows_legacy_tokens = knows_legacy_tokens
        self._loop = asyncio.get_running_loop()
        self._known: dict[bytes, KnownToken] = {}
        self._stale: dict[bytes, None] = {}  # digests that were known: looking them up is no guess
        self._unknown: dict[bytes, float] = {}  # digest: until when, on the loop's clock
        self._loading: dict[bytes, asyncio.Task[None]] = {}
        self._waiters: dict[bytes, list[Waiter]] = {}
        self._generation = 0  # how many changes there were
        self._altered: dict[str, int] = {}  # by which of them, while something is looked up
        self._all_altered = 0  # as which those count that are no longer in there
        self._guesses = Guesses(self._loop.time)
        self._grace: asyncio.TimerHandle | None = None
        self.is_store_lost = False

    @property
    def known_count(self) -> int:
        return len(self._known)

    def find(self, digest: bytes) -> KnownToken | None:
        return self._known.get(digest)

    def expect_legacy_tokens(self) -> None:
        self._knows_legacy_tokens = True

    def check_form(self, text: bytes) -> None:
        """Whether it can be a token at all: random strings are refused without a look-up."""
        if is_well_formed_token(text):
            return
        if not self._knows_legacy_tokens or not may_be_legacy_token(text):
            raise Refusal(
                "invalid_token",
                "This is not a token of this proxy; check that it was copied whole.",
            )

    def check(self, token: KnownToken, now: float) -> bool:
        """Raises Refusal in the order of the contract; `now` is in Unix seconds. False: it must be
        loaded anew, because others may have used it since."""
        if token.good_from <= now < token.good_until:
            return True
        grant = token.grant
        if not grant.is_active:
            raise Refusal("token_revoked", "This token was revoked; ask for a new one.")
        last_used_at = token.account.last_used_at
        is_stale = self._loop.time() - token.loaded_at > FRESH_S
        if is_stale and is_idle(grant, now, last_used_at):
            return False
        check_times(grant, now, last_used_at)
        if not grant.project_is_active:
            raise Refusal("project_inactive", "The project of this token is deactivated.")
        return True

    def drop(self, digest: bytes) -> None:
        """It is loaded anew when it is wanted."""
        if self._known.pop(digest, None) is None:
            return
        if len(self._stale) >= MAX_KNOWN:
            del self._stale[next(iter(self._stale))]
        self._stale[digest] = None

    def load(self, digest: bytes, client_ip: str, waiter: Waiter) -> None:
        """Calls `waiter` later, with the token or the reason why there is none."""
        if self.is_store_lost:
            self._loop.call_soon(waiter, store_unavailable())
            return
        if self._unknown.get(digest, 0.0) > self._loop.time():
            self._loop.call_soon(waiter, gone())
            return
        waiters = self._waiters.get(digest)
        if waiters is not None:
            waiters.append(waiter)
            return
        is_guess = digest not in self._stale
        if is_guess and (
            len(self._loading) >= MAX_LOADING or not self._guesses.may_look_up(client_ip)
        ):
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

    async def _load(self, digest: bytes, client_ip: str) -> None:
        # Also what the waiters get should this task end in a way that nobody foresaw.
        outcome: KnownToken | Refusal = store_unavailable()
        try:
            outcome = await self._load_current(digest)
            if isinstance(outcome, Refusal):
                self._guesses.missed(client_ip)
        except StoreError as exc:
            logger.warning("a token could not be looked up: %s", exc)
        finally:
            del self._loading[digest]
            if not self._loading:
                self._altered.clear()
            for waiter in self._waiters.pop(digest):
                waiter(outcome)

    async def _load_current(self, digest: bytes) -> KnownToken | Refusal:
        while True:
            generation = self._generation
            grant = await self._source.load(digest)
            self._stale.pop(digest, None)
            if grant is None:
                if generation == self._generation:  # else it may have been made meanwhile
                    self._remember_unknown(digest)
                return gone()
            if not self._is_altered(grant, generation):
                break
        account = self.accounts.of(grant.token_id)
        account.cap = grant.max_requests
        account.digests.add(digest)
        token = KnownToken(grant, account, self._loop.time())
        if len(self._known) >= MAX_KNOWN:
            self.drop(next(iter(self._known)))
        self._known[digest] = token
        return token

    def _is_altered(self, grant: TokenGrant, since: int) -> bool:
        altered = self._altered
        of_it = altered.get(grant.token_id, 0), altered.get(grant.project_id, 0)
        return max(*of_it, self._all_altered) > since

    def _remember_unknown(self, digest: bytes) -> None:
        now, unknown = self._loop.time(), self._unknown
        while unknown and unknown[first := next(iter(unknown))] <= now:
            del unknown[first]
        if len(unknown) >= MAX_UNKNOWN:
            unknown.clear()
        unknown[digest] = now + UNKNOWN_FOR_S

    def invalidate(self, kind: str, identity: str) -> None:
        """From now on nothing is admitted on an older snapshot of this token or project."""
        self._generation += 1
        self._unknown.clear()
        if self._loading:
            if len(self._altered) >= MAX_ALTERED:
                self._altered.clear()
                self._all_altered = self._generation
            self._altered[identity] = self._generation
        if kind.startswith("token"):
            # Not by looking at all: whoever makes many tokens makes as many changes.
            for digest in self.accounts.void(identity):
                self.drop(digest)
        elif kind.startswith("project"):
            for digest, token in tuple(self._known.items()):
                if token.grant.project_id == identity:
                    self.drop(digest)

    def store_is_lost(self, grace_s: float) -> None:
        """What is known goes on working for so long; who waits for the store is refused."""
        if self.is_store_lost:
            return
        self.is_store_lost = True
        self._grace = self._loop.call_later(grace_s, self._drop_all)
        self.accounts.lose_store()
        for digest, waiters in tuple(self._waiters.items()):
            self._waiters[digest] = []
            for waiter in waiters:
                waiter(store_unavailable())

    def _drop_all(self) -> None:
        for digest in tuple(self._known):
            self.drop(digest)

    def store_is_back(self) -> None:
        self.is_store_lost = self.accounts.is_store_lost = False
        if self._grace is not None:
            self._grace.cancel()
            self._grace = None

    async def close(self) -> None:
        """Waits for look-ups."""
        if self._grace is not None:
            self._grace.cancel()
        await asyncio.gather(*self._loading.values(), return_exceptions=True)
