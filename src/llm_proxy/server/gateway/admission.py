"""A request until it is admitted: route, refuse, admit.

Nothing here waits: where something isn't there yet (a token never seen, a body, a permit), the
exchange is called back and looks at everything again.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from time import perf_counter, time
from typing import TYPE_CHECKING, Final

from llm_proxy.errors import Refusal
from llm_proxy.server.gateway.answers import CONTINUE
from llm_proxy.server.gateway.api import MAX_CHECKED_BODY
from llm_proxy.server.gateway.breaker import Breaker
from llm_proxy.server.gateway.gateway import Gateway
from llm_proxy.server.gateway.limiter import NO_SLOTS
from llm_proxy.server.gateway.parameters import check_request
from llm_proxy.server.gateway.plan import Plan, client_token, control_head
from llm_proxy.server.gateway.request_head import RequestHead
from llm_proxy.server.gateway.request_ids import request_id
from llm_proxy.server.gateway.scope import check_models
from llm_proxy.server.gateway.tokens import KnownToken

if TYPE_CHECKING:
    from llm_proxy.server.gateway.client_connection import ClientConnection

MAX_ROUNDS: Final = 16  # of waiting for permits and limits

# What a request waits for before it is admitted.
_NOTHING, _TOKEN, _BODY, _PERMITS, _LIMITS = range(5)


class Admission(abc.ABC):
    """The first half of an exchange."""

    __slots__ = (
        "_body",
        "_body_ends",
        "_body_size",
        "_breaker",
        "_client",
        "_gateway",
        "_head",
        "_held",
        "_is_done",
        "_is_invited",
        "_lease_id",
        "_plan",
        "_rounds",
        "_slots",
        "_started_at",
        "_timestamp",
        "_token",
        "_waits_for",
        "keeps_alive",
        "request_id",
    )

    def __init__(self, gateway: Gateway, client: ClientConnection, head: RequestHead) -> None:
        self._started_at = perf_counter()
        self._timestamp = time()
        self._gateway = gateway
        self._client = client
        self._head = head
        self.keeps_alive = head.keeps_alive
        self.request_id = request_id(head.named.get(b"x-request-id"), self._timestamp)
        self._plan: Plan | None = head.plan
        self._token: KnownToken | None = None
        # The request's body: what has come and was not sent on, and how much there was in all.
        self._body: list[bytes] = []
        self._body_ends = False
        self._body_size = 0
        self._held = 0  # bytes of it that the gateway counts as held
        self._is_invited = False  # by 100 Continue
        self._waits_for = _NOTHING
        self._rounds = 0
        self._lease_id = 0  # that its permit came from
        self._slots = NO_SLOTS
        self._breaker: Breaker | None = None  # there is one once the request is admitted
        self._is_done = False

    # 1. The head is parsed, and with it came `body`.

    def start(self, body: bytes, ends: bool) -> None:
        self._body_ends = ends
        if body:
            self._body.append(body)
            self._body_size = len(body)
        try:
            plan = self._plan
            if plan is None:
                plan = self._make_plan()
            if plan.digest:
                self._admit()
            elif plan.is_preflight:
                self._answer_preflight(plan)
            else:
                address = self._address()
                self._forward(control_head(self._head, plan, address, self.request_id))
        except Refusal as refusal:
            self.refuse(refusal)

    # 2. Route, and refuse what the head alone gives reason to.

    def _make_plan(self) -> Plan:
        router = self._gateway.router
        plan = self._plan = Plan(*router.route(self._head.target))
        plan.check(self._head, router)
        self._head.plan = plan
        return plan

    # 3. Admit, on what is known at this moment; called again when more is known.

    def _admit(self) -> None:
        plan = self._plan
        assert plan is not None
        gateway = self._gateway
        tokens = gateway.tokens
        token = self._token = tokens.find(plan.digest)
        if token is None or not tokens.check(token, self._timestamp):
            self._load_token(plan)
            return
        upstream = plan.route.upstream
        scope = token.scope
        if scope is not None:
            route = plan.route
            scope.check(upstream.name, route.endpoint, self._head.method, self._address())
        credential = token.credentials.get(upstream.name) or token.add_credential(upstream)
        self._check_size(upstream.max_body)
        if upstream.param_whitelist or (scope is not None and scope.models):
            self._check_size(min(upstream.max_body, MAX_CHECKED_BODY))
            if not self._body_ends:
                self._wait_for_body()
                return
            self._check_body(upstream.param_whitelist, token)
        self._waits_for = _NOTHING
        if token.account.permits <= 0:
            self._waits_for = _PERMITS
            tokens.accounts.want(token.account, self._permits_come)
            return
        slots = gateway.limiter.take(token, self._address(), self._limits_come)
        if slots is None:
            self._waits_for = _LIMITS
            return
        self._slots = slots
        breaker = credential.breaker
        if breaker.is_tripped:
            self._pass(breaker)
        self._breaker = breaker
        gateway.running += 1
        self._lease_id = tokens.accounts.spend(token.account, self._timestamp)
        self._forward(plan.upstream_head(self._head, credential.line))

    def _pass(self, breaker: Breaker) -> None:
        try:
            breaker.admit(self)
        except Refusal:
            self._refund_limits()
            raise

    def _refund_limits(self) -> None:
        self._gateway.limiter.refund(self._slots)
        self._slots = NO_SLOTS

    def _wait_for_body(self) -> None:
        self._waits_for = _BODY
        self._held = self._gateway.hold(self._body_size, self._held)
        self._invite_body()
        self._client.resume_reading()

    def _check_body(self, whitelist: Mapping[str, Sequence[str]], token: KnownToken) -> None:
        body = b"".join(self._body)
        self._body = [body] if body else []
        if whitelist:
            check_request(self._head, body, whitelist)
        if token.scope is not None and token.scope.models:
            check_models(self._head, body, token.scope.models)

    def _load_token(self, plan: Plan) -> None:
        tokens = self._gateway.tokens
        tokens.check_form(client_token(self._head))
        tokens.drop(plan.digest)
        self._waits_for = _TOKEN
        tokens.load(plan.digest, self._address(), self._token_loaded)

    def _address(self) -> str:
        trusted = self._gateway.trusted_proxies
        peer = self._client.client_ip
        if trusted is None:
            return peer
        return trusted.client_of(peer, self._head.named.get(b"x-forwarded-for"))

    # Each is obeyed only while it is what the request waits for: one that came twice would
    # admit the request twice.

    def _token_loaded(self, outcome: KnownToken | Refusal) -> None:
        if self._is_done or self._waits_for != _TOKEN:
            return
        if isinstance(outcome, Refusal):
            self.refuse(outcome)
        else:
            self._retry_admit()

    def _permits_come(self, refusal: Refusal | None) -> None:
        if self._is_done or self._waits_for != _PERMITS:
            return
        if refusal is not None:
            self.refuse(refusal)
        else:
            self._retry_admit()

    def _limits_come(self) -> None:
        if self._is_done or self._waits_for != _LIMITS:
            return
        self._retry_admit()
        if self._waits_for != _LIMITS:  # it isn't asked for those again, so it must not be told
            self._gateway.limiter.cancel(self._limits_come)

    def _retry_admit(self) -> None:
        self._waits_for = _NOTHING
        self._rounds += 1
        try:
            if self._rounds > MAX_ROUNDS:
                raise _crowded_out()
            self._admit()
        except Refusal as refusal:
            self.refuse(refusal)

    def _check_size(self, limit: int) -> None:
        if self._head.content_length > limit or self._body_size > limit:
            if self._head.is_chunked:
                self.keeps_alive = False  # there may be no end to it
            raise Refusal(
                "body_too_large",
                f"The body is longer than the {limit} bytes allowed here.",
                details={"limit_bytes": limit},
            )

    def _invite_body(self) -> None:
        wanted = self._head.named.get(b"expect", b"").lower()
        if wanted == b"100-continue" and not self._is_invited and not self._head.is_http_10:
            self._is_invited = True
            self._client.write(CONTINUE)

    def _stop_waiting(self) -> None:
        waits_for, self._waits_for = self._waits_for, _NOTHING
        tokens, token, plan = self._gateway.tokens, self._token, self._plan
        if waits_for == _TOKEN and plan is not None:
            tokens.forget(plan.digest, self._token_loaded)
        elif waits_for == _PERMITS and token is not None:
            tokens.accounts.forget(token.account, self._permits_come)
        elif waits_for == _LIMITS:
            self._gateway.limiter.cancel(self._limits_come)

    def is_of(self, kind: str, identity: str) -> bool:
        """Whether it is a request of this token or project."""
        if self._token is None:
            return False
        grant = self._token.grant
        return identity == (grant.token_id if kind.startswith("token") else grant.project_id)

    @property
    def _is_waiting_for_body(self) -> bool:
        return self._waits_for == _BODY

    # The second half.

    @abc.abstractmethod
    def _forward(self, head: bytes) -> None: ...

    @abc.abstractmethod
    def _answer_preflight(self, plan: Plan) -> None: ...

    @abc.abstractmethod
    def refuse(self, refusal: Refusal) -> None: ...


def _crowded_out() -> Refusal:
    return Refusal(
        "overloaded",
        "Other requests were faster each time that there was room for this one; try again soon.",
        headers={"Retry-After": "1"},
    )
