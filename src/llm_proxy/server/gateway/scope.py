"""What a token is narrowed to, made ready to be asked for every request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from llm_proxy.address import UNIX
from llm_proxy.errors import Refusal
from llm_proxy.grants import Scope
from llm_proxy.networks import Networks
from llm_proxy.server.gateway.endpoints import Endpoints
from llm_proxy.server.gateway.parameters import check_request
from llm_proxy.server.gateway.request_head import RequestHead

_MAX_FRIENDS: Final = 16  # of one token
_SHOWN: Final = 200  # characters of a refused value


class ScopeCheck:
    """One for each known token that has a scope; `models` is for `check_models`."""

    __slots__ = ("_apis", "_endpoints", "_friends", "_methods", "_networks", "_scope", "models")

    def __init__(self, scope: Scope) -> None:
        self.models = scope.models
        self._scope = scope
        self._apis = frozenset(scope.apis)
        self._endpoints = Endpoints(scope.endpoints) if scope.endpoints else None
        self._methods = frozenset(method.encode() for method in scope.methods)
        self._networks = Networks(scope.networks) if scope.networks else None
        self._friends: set[str] = set()  # clients lately found in these networks

    def check(self, api: str, endpoint: bytes, method: bytes, client_ip: str) -> None:
        """Raises Refusal. `endpoint` is the raw path as the api knows it."""
        if self._networks is not None and client_ip not in self._friends:
            self._admit(client_ip, self._networks)
        if self._apis and api not in self._apis:
            raise _beyond("apis", api, self._scope.apis)
        if self._endpoints is not None and not self._endpoints.allow(endpoint):
            raise _beyond("endpoints", endpoint.decode("latin-1"), self._scope.endpoints)
        if self._methods and method not in self._methods:
            raise _beyond("methods", method.decode("latin-1"), self._scope.methods)

    def _admit(self, client_ip: str, networks: Networks) -> None:
        if not networks.includes(client_ip):
            raise _stranger(client_ip)
        if len(self._friends) >= _MAX_FRIENDS:
            self._friends.clear()
        self._friends.add(client_ip)


def check_models(head: RequestHead, body: bytes, models: Sequence[str]) -> None:
    """Raises Refusal for a whole request that names another model, or hides which it names."""
    try:
        check_request(head, body, {"model": models})
    except Refusal as refusal:
        raise Refusal(
            "insufficient_scope",
            f"This token is narrowed to some models. {refusal.message}",
            details={"rule": "models", "allowed": list(models)},
        ) from None


def _stranger(client_ip: str) -> Refusal:
    """Doesn't say from where it would work: the token may be stolen."""
    client = "a Unix socket" if client_ip == UNIX else client_ip
    return Refusal(
        "client_not_allowed",
        f"This token doesn't work from {client}; use it from where it is meant for, "
        "or ask whoever made it to allow this address.",
        details={"rule": "networks", "value": client_ip},
    )


def _beyond(rule: str, value: str, allowed: Sequence[str]) -> Refusal:
    return Refusal(
        "insufficient_scope",
        f"This token is narrowed to the {rule} {', '.join(allowed)}, not {value[:_SHOWN]}; "
        "ask for one that allows this.",
        details={"rule": rule, "value": value[:_SHOWN], "allowed": list(allowed)},
    )
