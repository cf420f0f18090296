from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.errors import Refusal
from llm_proxy.grants import Scope
from llm_proxy.server.control.scopes import ScopeBody, scope_changes
from llm_proxy.server.gateway.scope import ScopeCheck
from llm_proxy.store.scopes import ScopeChanges

APIS = ("openai", "anthropic")


def changed(**lists: Any) -> ScopeChanges:
    changes = scope_changes(ScopeBody(**lists), APIS)
    assert changes is not None
    return changes


def test_what_is_valid_is_taken_once_each_in_its_order() -> None:
    changes = changed(
        apis=["openai", "anthropic", "openai"],
        endpoints=["/v1/models", "/v1/files/*", "/*"],
        methods=["POST", "GET"],
        models=["gpt-4*", "claude-[34]"],
        networks=["192.0.2.1", "10.0.0.0/8", "2001:DB8::/32", "unix", "192.0.2.1/32"],
    )
    assert changes == ScopeChanges(
        apis=("openai", "anthropic"),
        endpoints=("/v1/models", "/v1/files/*", "/*"),
        methods=("POST", "GET"),
        models=("gpt-4*", "claude-[34]"),
        networks=("192.0.2.1/32", "10.0.0.0/8", "2001:db8::/32", "unix"),
    )


def test_what_is_not_sent_stays_and_null_lifts_everything() -> None:
    assert changed() == ScopeChanges()
    assert changed(models=[]) == ScopeChanges(models=())
    assert scope_changes(None, APIS) is None


@pytest.mark.parametrize(
    ("name", "entry", "rule"),
    [
        ("apis", "mistral", "the configured apis are: openai, anthropic"),
        ("endpoints", "v1/models", "a path like /v1/models"),
        ("endpoints", "/v1/*/x", "a path like /v1/models"),
        ("endpoints", "/v1/../x", "without . or .. segments"),
        ("endpoints", "/v1?x=1", "a path like /v1/models"),
        ("methods", "get", "a method in capital letters"),
        ("methods", "TRACE", "a method that can be forwarded"),
        ("models", "", "a pattern of 1 to 200 characters"),
        ("models", "gpt-[4", "whose [ is closed"),
        ("networks", "10.0.0.1/8", "networks like 10.0.0.0/8 (no bits set"),
        ("networks", "10.0.0.1,10.0.0.2", "not '10.0.0.1,10.0.0.2'"),
        ("networks", "", "not ''"),
        ("networks", "office", "not 'office'"),
        ("networks", "x" * 501, "at most 500 characters"),
    ],
)
def test_an_entry_that_is_wrong_is_named(name: str, entry: str, rule: str) -> None:
    with pytest.raises(Refusal) as caught:
        changed(**{name: [entry]})
    assert caught.value.status_code == 400
    assert caught.value.details == {"field": f"scope.{name}"}
    assert rule in caught.value.message


def test_a_list_has_a_limit() -> None:
    models = [f"m{number}" for number in range(100)]
    assert changed(models=models).models == tuple(models)
    with pytest.raises(Refusal, match=r"scope\.models must have at most 100 entries, not 101"):
        changed(models=[*models, "m"])


@given(
    st.sampled_from(("apis", "endpoints", "methods", "models", "networks")),
    st.lists(st.text(max_size=20) | st.from_regex(r"/[a-z/*.]{0,9}"), max_size=3),
)
def test_whatever_is_taken_can_be_checked(name: str, entries: list[str]) -> None:
    try:
        changes = changed(**{name: entries})
    except Refusal as refusal:
        assert refusal.details == {"field": f"scope.{name}"}
    else:
        ScopeCheck(changes.applied_to(Scope()))
