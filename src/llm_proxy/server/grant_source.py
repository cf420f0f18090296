"""Grants out of the store, for the gateway, which knows only `GrantSource`."""

from __future__ import annotations

from llm_proxy.errors import StoreError
from llm_proxy.grants import TokenGrant
from llm_proxy.store.database import Store
from llm_proxy.store.grants import load_grant


class StoreGrantSource:
    def __init__(self, store: Store) -> None:
        self._store = store
        self.lookups = {"found": 0, "unknown": 0, "failed": 0}  # so far

    async def load(self, digest: bytes) -> TokenGrant | None:
        try:
            grant = await self._store.run(load_grant, digest)
        except StoreError:
            self.lookups["failed"] += 1
            raise
        self.lookups["unknown" if grant is None else "found"] += 1
        return grant
