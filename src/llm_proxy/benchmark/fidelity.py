"""Whether the answers through the proxy are those that the upstream gives directly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

from llm_proxy.benchmark.plan import DIRECT, PROXIED
from llm_proxy.benchmark.report import Fidelity

MOST_BODIES: Final = 10_000
MOST_DIGESTS: Final = 4  # of one body and lane; more count as one further answer
_OTHER: Final = 0  # no complete answer has this digest
_MOST_NAMED: Final = 10


class FidelityTally:
    def __init__(self) -> None:
        self._answers: dict[int, tuple[Counter[int], Counter[int]]] = {}  # by body, by lane

    def add(self, lane: int, answers: Iterable[tuple[int, int]]) -> None:
        """Body and digest of each; one that isn't complete has digest 0."""
        for (body, digest), count in Counter(answers).items():
            if digest:
                self._count(lane, body, digest, count)

    def _count(self, lane: int, body: int, digest: int, count: int) -> None:
        seen = self._answers.get(body)
        if seen is None:
            if len(self._answers) >= MOST_BODIES:
                return
            seen = self._answers[body] = (Counter(), Counter())
        digests = seen[lane]
        is_known = digest in digests or len(digests) < MOST_DIGESTS
        digests[digest if is_known else _OTHER] += count

    def verdict(self) -> Fidelity:
        """A body that was directly answered in several ways says nothing of the proxy.

        The same is feared of one that was directly answered only once, unless the upstream has
        shown that it repeats itself.
        """
        pairs = {body: lanes for body, lanes in self._answers.items() if all(lanes)}
        if not pairs:
            return _not_comparable("no body was answered completely on both sides")
        steady = {body: lanes for body, lanes in pairs.items() if len(lanes[DIRECT]) == 1}
        if not steady:
            return _not_comparable("the upstream itself never repeats an answer")
        is_trusted = len(steady) == len(pairs) and any(map(_repeats, steady.values()))
        comparable = {
            body: lanes
            for body, lanes in steady.items()
            if is_trusted or lanes[DIRECT].total() > 1 or not _differing(lanes)
        }
        if not any(map(_differing, comparable.values())) and len(comparable) < len(steady):
            return _not_comparable(
                "answers differ, but the upstream wasn't seen to repeat itself: "
                "send the same body more often"
            )
        return _compared(comparable)


def _repeats(lanes: tuple[Counter[int], Counter[int]]) -> bool:
    """Whether the upstream gave the same answer twice, in whichever lane."""
    (digest,) = lanes[DIRECT]
    return lanes[DIRECT].total() > 1 or digest in lanes[PROXIED]


def _differing(lanes: tuple[Counter[int], Counter[int]]) -> int:
    (digest,) = lanes[DIRECT]
    return lanes[PROXIED].total() - lanes[PROXIED][digest]


def _compared(comparable: dict[int, tuple[Counter[int], Counter[int]]]) -> Fidelity:
    differing = {body: count for body, lanes in comparable.items() if (count := _differing(lanes))}
    return Fidelity(
        verdict="different" if differing else "equal",
        compared=sum(lanes[PROXIED].total() for lanes in comparable.values()),
        different=sum(differing.values()),
        bodies=tuple(sorted(differing)[:_MOST_NAMED]),
    )


def _not_comparable(reason: str) -> Fidelity:
    return Fidelity(verdict="not comparable", reason=reason)
