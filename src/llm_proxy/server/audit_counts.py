"""Events that strangers can cause in any number, told in a bounded number of records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

from llm_proxy.audit import AuditEntry

MOST_KINDS: Final = 1000  # held apart; of the others only the reason is kept
BURST: Final = 100  # records at once …
REFILL_S: Final = 30.0  # … and then one in this time: 2,980 on any day, however many events
MOST_OF_ADDRESS: Final = 10  # records of their own that one client address gets in a minute
_MINUTE_S: Final = 60.0

# Reason, token id, project id and client address; what isn't known is empty.
Kind = tuple[str, str, str, str]


class Budget:
    """How many records may be written."""

    def __init__(self, *, burst: int = BURST, refill_s: float = REFILL_S) -> None:
        self._burst = burst
        self._refill_s = refill_s
        self._left = float(burst)
        self._at = 0.0

    def left(self, now: float) -> int:
        if self._at:
            self._left = min(self._burst, self._left + (now - self._at) / self._refill_s)
        self._at = now
        return int(self._left)

    def spend(self, count: int) -> None:
        self._left -= count


class AuditCounts:
    """Of one action, like `proxy.refused`."""

    def __init__(self, action: str, actor: str, budget: Budget) -> None:
        self._action = action
        self._actor = actor
        self._budget = budget
        self._counts: Counter[Kind] = Counter()
        self._rest: Counter[str] = Counter()  # by reason
        self._recent: Counter[str] = Counter()  # records of addresses, in this minute
        self._minute = 0

    def may_tell(self, client_ip: str, now: float) -> bool:
        """Whether an event gets a record of its own, and not only a count."""
        if (minute := int(now / _MINUTE_S)) != self._minute:
            self._minute = minute
            self._recent.clear()
        if self._recent[client_ip] >= MOST_OF_ADDRESS or not self._budget.left(now):
            return False
        self._recent[client_ip] += 1
        self._budget.spend(1)
        return True

    def add(self, kind: Kind, count: int = 1) -> None:
        if kind in self._counts or len(self._counts) < MOST_KINDS:
            self._counts[kind] += count
        else:
            self._rest[kind[0]] += count

    def add_rest(self, counts: Mapping[str, int]) -> None:
        self._rest.update(counts)

    def take(self, now: float) -> list[AuditEntry]:
        """What is to be written now; what the budget has no room for is held, or summed up."""
        room = self._budget.left(now)
        if not room or not (self._counts or self._rest):
            return []
        counts, self._counts = self._counts, Counter()
        rest, self._rest = self._rest, Counter()
        named = counts.most_common(room if len(counts) <= room and not rest else room - 1)
        for kind, _ in named:
            del counts[kind]
        for kind, count in counts.items():
            rest[kind[0]] += count
        entries = [self._entry(kind, count) for kind, count in named]
        entries += self._summary(rest)
        self._budget.spend(len(entries))
        return entries

    def put_back(self, entries: Iterable[AuditEntry]) -> None:
        """They could not be written."""
        for entry in entries:
            if (reasons := entry.details.get("reasons")) is not None:
                self._rest.update(reasons)
            else:
                ids = (entry.token_id or "", entry.project_id or "", entry.client_ip or "")
                self.add((entry.reason or "", *ids), entry.details["count"])

    def _entry(self, kind: Kind, count: int) -> AuditEntry:
        reason, token_id, project_id, client_ip = kind
        return AuditEntry(
            action=self._action,
            actor=self._actor,
            outcome="denied",
            reason=reason,
            token_id=token_id or None,
            project_id=project_id or None,
            client_ip=client_ip or None,
            details={"count": count},
        )

    def _summary(self, rest: Mapping[str, int]) -> Iterable[AuditEntry]:
        if not rest:
            return
        details = {"count": sum(rest.values()), "reasons": dict(rest)}
        yield AuditEntry(
            action=self._action,
            actor=self._actor,
            outcome="denied",
            reason=next(iter(rest)) if len(rest) == 1 else "several",
            details=details,
        )
