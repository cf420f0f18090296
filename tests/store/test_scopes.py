from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.errors import StoreError
from llm_proxy.grants import Scope
from llm_proxy.store.scopes import ScopeChanges, decode_scope, encode_scope

LISTS = st.lists(st.text(max_size=5), max_size=3).map(tuple)
SCOPES = st.builds(Scope, apis=LISTS, endpoints=LISTS, methods=LISTS, models=LISTS, networks=LISTS)


@given(SCOPES)
def test_a_scope_comes_back_as_it_was_stored(scope: Scope) -> None:
    assert decode_scope("t", encode_scope(scope)) == scope


def test_a_scope_that_narrows_nothing_is_not_stored() -> None:
    assert encode_scope(Scope()) is None


@pytest.mark.parametrize("text", ["{", "[]", '{"regions": ["eu"]}', '{"apis": "openai"}'])
def test_a_scope_that_is_not_understood_is_no_freedom(text: str) -> None:
    with pytest.raises(StoreError, match="the scope of token t can't be read"):
        decode_scope("t", text)


@given(SCOPES, LISTS)
def test_changes_keep_what_they_do_not_name(scope: Scope, models: tuple[str, ...]) -> None:
    assert ScopeChanges().applied_to(scope) == scope
    changed = ScopeChanges(models=models).applied_to(scope)
    assert changed.models == models
    assert (changed.apis, changed.networks) == (scope.apis, scope.networks)
