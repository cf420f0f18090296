"""How often clients went away before they had their whole answer, told apart by their keys."""

from __future__ import annotations

from collections import Counter
from hashlib import blake2b

import msgspec

from llm_proxy.benchmark.mock_answer import Answer
from llm_proxy.benchmark.mock_dialects import dialect_of
from llm_proxy.benchmark.mock_faults import Faults
from llm_proxy.benchmark.mock_request import Request

MOST_KEYS = 1000


class HangUps:
    def __init__(self) -> None:
        self._counts: Counter[bytes] = Counter()  # by a digest of the key

    def note(self, request: Request) -> None:
        """Its client is gone. When there are too many keys, one that came early is forgotten."""
        self._counts[_digest(request)] += 1
        if len(self._counts) > MOST_KEYS:
            del self._counts[next(iter(self._counts))]

    def tell(self, request: Request, faults: Faults) -> Answer:
        """Those of requests with the same key as this one."""
        return Answer(body=msgspec.json.encode({"hang_ups": self._counts[_digest(request)]}))


def _digest(request: Request) -> bytes:
    key = dialect_of(request).key(request) or ""
    return blake2b(key.encode("utf-8", "surrogateescape"), digest_size=16).digest()
