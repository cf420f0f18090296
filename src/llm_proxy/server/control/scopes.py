"""What a token may be narrowed to: the `scope` of requests, checked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import msgspec
from msgspec import UNSET, UnsetType

from llm_proxy.address import parse_networks
from llm_proxy.provider_rules import parse_endpoint, parse_glob, parse_method
from llm_proxy.server.control.answers import invalid, shortened
from llm_proxy.server.control.rules import configured_api
from llm_proxy.store.scopes import ScopeChanges

_MOST_ENTRIES: Final = 100  # of each list
_LONGEST_ENTRY: Final = 500  # characters


class ScopeBody(msgspec.Struct, forbid_unknown_fields=True):
    """Lists that aren't sent stay as they are."""

    apis: list[str] | UnsetType = UNSET
    endpoints: list[str] | UnsetType = UNSET
    methods: list[str] | UnsetType = UNSET
    models: list[str] | UnsetType = UNSET
    networks: list[str] | UnsetType = UNSET


def scope_changes(body: ScopeBody | None, apis: Sequence[str]) -> ScopeChanges | None:
    """Raises Refusal naming the entry that is wrong; `apis` are those configured."""
    if body is None:
        return None

    def api(name: str) -> str:
        return configured_api("scope.apis", name, apis)

    return ScopeChanges(
        apis=_checked("apis", body.apis, api),
        endpoints=_checked("endpoints", body.endpoints, parse_endpoint),
        methods=_checked("methods", body.methods, parse_method),
        models=_checked("models", body.models, parse_glob),
        networks=_checked("networks", body.networks, _parse_network),
    )


def _checked(
    name: str, entries: list[str] | UnsetType, parse: Callable[[str], str]
) -> tuple[str, ...] | UnsetType:
    if isinstance(entries, UnsetType):
        return UNSET
    field = f"scope.{name}"
    if len(entries) > _MOST_ENTRIES:
        raise invalid(field, f"must have at most {_MOST_ENTRIES} entries, not {len(entries)}")
    checked = []
    for entry in entries:
        if len(entry) > _LONGEST_ENTRY:
            raise invalid(field, f"must have entries of at most {_LONGEST_ENTRY} characters")
        try:
            checked.append(parse(entry))
        except ValueError as exc:
            raise invalid(field, f"must hold {exc}, not {shortened(entry)!r}") from exc
    return tuple(dict.fromkeys(checked))


def _parse_network(text: str) -> str:
    try:
        (network,) = parse_networks(text)
    except ValueError:
        rule = "addresses, networks like 10.0.0.0/8 (no bits set after those 8), or the word unix"
        raise ValueError(rule) from None
    return network
