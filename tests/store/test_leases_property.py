"""Workers that take, spend, settle, crash and are lost, in any order: no cap is ever exceeded, and
nothing is lost but what a lost machine held."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from llm_proxy.grants import Lease, LeaseUse, NoPermits
from llm_proxy.store.database import Store
from llm_proxy.store.leases import (
    extend_lease,
    give_back_leases,
    settle_holder,
    settle_leases,
    take_lease,
    write_off_holder,
)
from llm_proxy.store.projects import delete_project
from llm_proxy.store.tokens import Token, TokenChanges, update_token

AddToken = Callable[..., tuple[Token, bytes]]
CAPS = st.one_of(st.integers(1, 60), st.integers(1, 60), st.none())
WORKERS = st.integers(0, 2)
WANTED = st.integers(1, 40)
EXAMPLES = int(os.environ.get("TEST_LEASE_EXAMPLES", "20"))
_names = (f"worker {number}" for number in itertools.count())


@dataclass
class Spending:
    """A slot of a worker's ledger, with what the worker knows of the lease."""

    lease_id: int
    granted: int | None
    used: int = 0
    told: list[int] = field(default_factory=lambda: [0])  # what was ever said of `used`

    def use(self) -> LeaseUse:
        self.told.append(self.used)
        return LeaseUse(self.lease_id, self.used, float(self.used))

    @property
    def can_spend(self) -> bool:
        return self.granted is None or self.used < self.granted


@dataclass
class Worker:
    name: str = field(default_factory=lambda: next(_names))
    ledger: dict[int, Spending] = field(default_factory=dict)  # by lease


class Leases(RuleBasedStateMachine):
    def __init__(self, store: Store, add_token: AddToken, now: datetime) -> None:
        super().__init__()
        self.store = store
        self.add_token = add_token
        self.now = now
        self.alive = [Worker(), Worker(), Worker()]
        self.dead: list[Worker] = []  # to be reaped
        self.spent = 0
        self.lost = 0  # counted and never spent
        self.uncounted = 0  # spent without a cap and lost with the machine
        self.is_deleted = False

    @initialize(cap=CAPS)
    def begin(self, cap: int | None) -> None:
        self.cap = cap
        self.token, _ = self.add_token(max_requests=cap)

    @rule(number=WORKERS, count=st.integers(1, 30), wanted=WANTED, ahead=st.booleans())
    def demand(self, number: int, count: int, wanted: int, ahead: bool) -> None:
        """Hypothesis leaves whole rules out of a run, so one of them does all that there must be."""
        worker = self.alive[number]
        if ahead:
            self._take(worker, wanted)
        for _ in range(count):
            slot = next((slot for slot in worker.ledger.values() if slot.can_spend), None)
            slot = slot or self._take(worker, wanted)
            if slot is None:
                return
            self._spend_one(slot)

    def _take(self, worker: Worker, wanted: int) -> Spending | None:
        lease = take_lease(
            self.store, self.token.id, wanted, host="h", holder=worker.name, at=self.now
        )
        assert (lease is None) == self.is_deleted
        if not isinstance(lease, Lease):
            return None
        assert (lease.granted is None) == (self.cap is None)
        assert lease.granted is None or 1 <= lease.granted <= wanted
        slot = worker.ledger[lease.id] = Spending(lease.id, lease.granted)
        self._check_grants()
        return slot

    def _check_grants(self) -> None:
        if self.cap is not None:
            assert sum(self._books()) <= self.cap

    def _spend_one(self, slot: Spending) -> None:
        slot.used += 1
        self.spent += 1
        if self.cap is not None and not self.is_deleted:
            assert self.spent - self.uncounted + self.lost <= self.cap

    @rule(number=WORKERS)
    def settle(self, number: int) -> None:
        worker = self.alive[number]
        settle_leases(self.store, [slot.use() for slot in worker.ledger.values()])

    @rule(number=WORKERS, data=st.data())
    def settle_what_was_said_before(self, number: int, data: st.DataObject) -> None:
        worker = self.alive[number]
        for slot in worker.ledger.values():
            used = data.draw(st.sampled_from(slot.told))
            settle_leases(self.store, [LeaseUse(slot.lease_id, used, float(used))])

    @rule(number=WORKERS, wanted=WANTED)
    def extend(self, number: int, wanted: int) -> None:
        worker = self.alive[number]
        for slot in list(worker.ledger.values()):
            self._extend(slot, wanted)

    def _extend(self, slot: Spending, wanted: int) -> None:
        answer = extend_lease(self.store, slot.use(), wanted)
        if answer is None:  # deleted, or written off: what is left of it is nobody else's
            return
        if isinstance(answer, Lease):
            slot.granted = answer.granted
            self._check_grants()
        elif slot.granted is None:
            slot.granted = slot.used
        assert isinstance(answer, Lease | NoPermits)

    @rule(number=WORKERS)
    def give_back(self, number: int) -> None:
        worker = self.alive[number]
        self._give_back(worker)

    def _give_back(self, worker: Worker) -> None:
        uses = [slot.use() for slot in worker.ledger.values()]
        give_back_leases(self.store, uses)
        worker.ledger.clear()
        settle_leases(self.store, uses)  # a late copy of it

    @rule(number=WORKERS)
    def crash(self, number: int) -> None:
        self.dead.append(self.alive[number])
        self.alive[number] = Worker()

    @precondition(lambda self: self.dead)
    @rule()
    def reap(self) -> None:
        self._reap(self.dead.pop())

    def _reap(self, worker: Worker) -> None:
        uses = {slot.lease_id: slot.use() for slot in worker.ledger.values()}
        settle_holder(self.store, uses, host="h", holder=worker.name)
        settle_holder(self.store, uses, host="h", holder=worker.name)

    @precondition(lambda self: self.dead)
    @rule()
    def lose(self) -> None:
        self._write_off(self.dead.pop())

    @rule(number=WORKERS)
    def write_off_one_that_lives(self, number: int) -> None:
        """As when its host was silent for long: what it holds of a cap it may still spend."""
        worker = self.alive[number]
        self._write_off(worker)
        for slot in list(worker.ledger.values()):
            while slot.granted is not None and slot.can_spend:
                self.lost -= 1
                self._spend_one(slot)
        settle_leases(self.store, [slot.use() for slot in worker.ledger.values()])
        worker.ledger.clear()

    def _write_off(self, worker: Worker) -> None:
        leases = self._leases(worker.name)
        write_off_holder(self.store, host="h", holder=worker.name)
        for slot in worker.ledger.values():
            if slot.lease_id not in leases:
                continue
            granted, settled = leases[slot.lease_id]
            if granted is None:
                self.uncounted += slot.used - settled
            else:
                self.lost += max(granted, settled) - slot.used

    def _leases(self, holder: str) -> dict[int, tuple[int | None, int]]:
        with self.store.reading() as database:
            rows = database.sql(
                "SELECT id, granted, settled FROM leases WHERE holder = ?", (holder,)
            )
        return {lease_id: (granted, settled) for lease_id, granted, settled in rows}

    @precondition(lambda self: not self.is_deleted)
    @rule(cap=CAPS, gives_back=st.booleans(), wanted=WANTED)
    def change_cap(self, cap: int | None, gives_back: bool, wanted: int) -> None:
        """Every worker that runs hears of it before it spends again."""
        update_token(self.store, self.token.id, TokenChanges(max_requests=cap), at=self.now)
        # Whoever gives back spends nothing after it; to extend is for leases without a cap.
        capped_before, self.cap = self.cap is not None, cap
        for worker in self.alive:
            if gives_back or capped_before:
                self._give_back(worker)
            else:
                for slot in list(worker.ledger.values()):
                    self._extend(slot, wanted)

    @precondition(lambda self: not self.is_deleted and self.spent > 20)
    @rule(sure=st.integers(0, 5))
    def delete(self, sure: int) -> None:
        if sure == 0:
            delete_project(self.store, self.token.project_id, force=True, at=self.now)
            self.is_deleted = True

    @invariant()
    def books_agree(self) -> None:
        if not hasattr(self, "token") or self.is_deleted:
            return
        count, reserved = self._books()
        workers = [*self.alive, *self.dead]
        held = [row for worker in workers for row in self._leases(worker.name).values()]
        assert reserved == sum(max(0, g - s) for g, s in held if g is not None)
        assert count <= self.spent - self.uncounted + self.lost

    def _books(self) -> tuple[int, int]:
        with self.store.reading() as database:
            columns = "SELECT request_count, reserved FROM tokens WHERE id = ?"
            ((count, reserved),) = database.sql(columns, (self.token.id,))
        return count, reserved

    def teardown(self) -> None:
        if not hasattr(self, "token"):
            return
        for worker in [*self.alive, *self.dead]:
            self._reap(worker)
        if self.is_deleted:
            return
        assert self._books() == (self.spent - self.uncounted + self.lost, 0)
        if self.cap is None:
            return
        before = self.spent - self.uncounted + self.lost
        worker = Worker()
        while (slot := self._take(worker, 7)) is not None:
            while slot.can_spend:
                self._spend_one(slot)
            self._give_back(worker)
        lease = take_lease(self.store, self.token.id, 7, host="h", holder="last", at=self.now)
        assert lease == NoPermits(is_final=True)
        assert self._books() == (max(self.cap, before), 0)


def test_no_schedule_exceeds_a_cap_or_loses_a_permit(
    store: Store, add_token: AddToken, now: datetime
) -> None:
    run_state_machine_as_test(
        partial(Leases, store, add_token, now),  # type: ignore[arg-type]  # is called, no more
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
