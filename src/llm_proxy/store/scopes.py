"""What tokens are narrowed to, as it is stored and changed."""

from __future__ import annotations

import msgspec
from msgspec import UNSET, UnsetType

from llm_proxy.errors import StoreError
from llm_proxy.grants import Scope


class ScopeChanges(msgspec.Struct, frozen=True, kw_only=True):
    """UNSET leaves a list as it is, an empty one narrows nothing."""

    apis: tuple[str, ...] | UnsetType = UNSET
    endpoints: tuple[str, ...] | UnsetType = UNSET
    methods: tuple[str, ...] | UnsetType = UNSET
    models: tuple[str, ...] | UnsetType = UNSET
    networks: tuple[str, ...] | UnsetType = UNSET

    def applied_to(self, scope: Scope) -> Scope:
        given = {name: value for name, value in self._fields() if value is not UNSET}
        return msgspec.structs.replace(scope, **given)

    def _fields(self) -> list[tuple[str, object]]:
        return list(msgspec.structs.asdict(self).items())


def encode_scope(scope: Scope) -> str | None:
    return msgspec.json.encode(scope).decode() if scope else None


def decode_scope(token_id: str, text: str | None) -> Scope:
    if not text:
        return Scope()
    try:
        return msgspec.json.decode(text, type=Scope)
    except msgspec.MsgspecError as exc:
        # A narrowing that isn't understood must not pass for none.
        raise StoreError(
            f"the scope of token {token_id} can't be read ({exc}); "
            "give it a new one with: llm-proxy manage token update --no-scope"
        ) from exc
