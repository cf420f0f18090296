"""Which paths a list of endpoints allows; matched raw, nothing is decoded."""

from __future__ import annotations

from collections.abc import Iterable


class Endpoints:
    __slots__ = ("_allows_all", "_exact", "_subtrees")

    def __init__(self, patterns: Iterable[str]) -> None:
        """Exact paths, or those of subtrees with `/*` at the end; `/*` alone is everything."""
        endpoints = [pattern.encode() for pattern in patterns]
        self._allows_all = b"/*" in endpoints
        # A subtree holds its root: `/v1/files/*` allows `/v1/files` too.
        roots = [endpoint[:-2] for endpoint in endpoints if endpoint.endswith(b"/*")]
        self._exact = frozenset([*endpoints, *roots])
        self._subtrees = tuple(root + b"/" for root in roots)

    def allow(self, path: bytes) -> bool:
        return path in self._exact or self._allows_all or path.startswith(self._subtrees)
