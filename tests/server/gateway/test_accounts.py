from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_proxy.errors import Refusal, StoreError
from llm_proxy.server.gateway.accounts import SETTLE_TICKS, Account, Accounts
from llm_proxy.server.ledger import SLOT_CELLS
from tests.server.gateway.memory_leases import MemoryLeases, MemoryLedger

pytestmark = pytest.mark.anyio

TOKEN = "token-1"


@pytest.fixture
def leases() -> MemoryLeases:
    leases = MemoryLeases()
    leases.caps[TOKEN] = None
    return leases


async def permit(accounts: Accounts, account: Account) -> Refusal | None:
    """What an exchange does until it may spend one; else why not."""
    while account.permits <= 0:
        answer: asyncio.Future[Refusal | None] = asyncio.get_running_loop().create_future()
        try:
            accounts.want(account, answer.set_result)
        except Refusal as refusal:
            return refusal
        async with asyncio.timeout(30):
            if (reason := await answer) is not None:
                return reason
    return None


async def spend(accounts: Accounts, account: Account, *, now: float = 1.0) -> bool:
    refusal = await permit(accounts, account)
    if refusal is None:
        accounts.spend(account, now)
        accounts.sent(account)
    return refusal is None


async def settle(accounts: Accounts) -> None:
    for _ in range(SETTLE_TICKS):
        await accounts.tick()


async def test_common_request_asks_nothing_of_the_store(leases: MemoryLeases) -> None:
    accounts = Accounts(leases, MemoryLedger())
    account = accounts.of(TOKEN)
    for _ in range(100):
        assert await spend(accounts, account)
    assert leases.calls == ["take"]
    await settle(accounts)
    assert leases.calls == ["take", "settle"]
    assert leases.counts[TOKEN] == 100


async def test_settling_tells_the_latest_use(leases: MemoryLeases) -> None:
    accounts = Accounts(leases, MemoryLedger())
    await spend(accounts, accounts.of(TOKEN), now=12.0)
    await spend(accounts, accounts.of(TOKEN), now=34.5)
    await settle(accounts)
    assert leases.last_used_at[TOKEN] == 34.5


async def test_what_rests_is_not_told_again(leases: MemoryLeases) -> None:
    accounts = Accounts(leases, MemoryLedger())
    await spend(accounts, accounts.of(TOKEN))
    await settle(accounts)
    await settle(accounts)
    assert leases.calls == ["take", "settle"]
    assert leases.looks == 1  # for leases whose answer was lost


async def test_cap_is_exact(leases: MemoryLeases) -> None:
    leases.caps[TOKEN] = 37
    accounts = Accounts(leases, MemoryLedger())
    account = accounts.of(TOKEN)
    admitted = sum([await spend(accounts, account) for _ in range(60)])
    assert admitted == 37
    await accounts.close()
    assert leases.counts[TOKEN] == 37


async def test_exhausted_token_is_refused_without_the_store(leases: MemoryLeases) -> None:
    leases.caps[TOKEN] = 1
    accounts = Accounts(leases, MemoryLedger())
    account = accounts.of(TOKEN)
    account.cap = 1
    await spend(accounts, account)
    await accounts.tick()
    await accounts.tick()
    assert not await spend(accounts, account)
    calls = len(leases.calls)
    refusal = await permit(accounts, account)
    assert refusal is not None
    assert (refusal.code, refusal.details) == ("token_quota_exhausted", {"max_requests": 1})
    assert refusal.headers == {"x-should-retry": "false"}
    assert len(leases.calls) == calls


async def test_unused_permits_go_back_within_two_ticks(leases: MemoryLeases) -> None:
    leases.caps[TOKEN] = 100
    accounts = Accounts(leases, MemoryLedger())
    await spend(accounts, accounts.of(TOKEN))
    await accounts.tick()
    assert leases.held
    await accounts.tick()
    assert not leases.held
    assert leases.counts[TOKEN] == 1


async def test_waiting_requests_get_permits_that_another_worker_gives_back(
    leases: MemoryLeases,
) -> None:
    leases.caps[TOKEN] = 1
    one, other = Accounts(leases, MemoryLedger()), Accounts(leases, MemoryLedger())
    assert await permit(one, one.of(TOKEN)) is None  # held, and not spent
    waiting = asyncio.create_task(spend(other, other.of(TOKEN)))
    while leases.calls.count("take") < 2:
        await asyncio.sleep(0)
    await one.close()
    assert await waiting


async def test_permits_that_nobody_gives_back_end_in_a_refusal(leases: MemoryLeases) -> None:
    leases.caps[TOKEN] = 1
    one, other = Accounts(leases, MemoryLedger()), Accounts(leases, MemoryLedger())
    assert await permit(one, one.of(TOKEN)) is None
    refusal = await permit(other, other.of(TOKEN))
    assert refusal is not None
    assert (refusal.code, refusal.headers) == ("token_quota_exhausted", {"Retry-After": "1"})


async def test_thousand_waiters_share_what_there_is(leases: MemoryLeases) -> None:
    leases.caps[TOKEN] = 10
    workers = [Accounts(leases, MemoryLedger()) for _ in range(2)]
    spends = [spend(accounts, accounts.of(TOKEN)) for accounts in workers for _ in range(500)]
    assert sum(await asyncio.gather(*spends)) == 10


async def test_nothing_is_spent_on_a_voided_lease(leases: MemoryLeases) -> None:
    leases.caps[TOKEN] = 100
    accounts = Accounts(leases, MemoryLedger())
    account = accounts.of(TOKEN)
    await spend(accounts, account)
    accounts.void(TOKEN)
    assert account.permits == 0
    leases.caps[TOKEN] = 2  # lowered
    assert [await spend(accounts, account) for _ in range(3)] == [True, False, False]
    await accounts.close()
    assert leases.counts[TOKEN] == 2


async def test_what_comes_after_a_change_is_not_spent(leases: MemoryLeases) -> None:
    leases.caps[TOKEN] = 1000
    accounts = Accounts(leases, MemoryLedger())
    account = accounts.of(TOKEN)
    leases.may_go_on.clear()
    waiting = asyncio.create_task(spend(accounts, account))
    await leases.is_asked.wait()
    accounts.void(TOKEN)  # while the store is being asked
    leases.may_go_on.set()
    assert await waiting
    assert leases.calls == ["take", "give_back", "take"]


async def test_change_of_a_token_never_seen_is_nothing(leases: MemoryLeases) -> None:
    Accounts(leases, MemoryLedger()).void("nobody's")
    assert not leases.calls


async def test_deleted_token_is_unknown(leases: MemoryLeases) -> None:
    accounts = Accounts(leases, MemoryLedger())
    refusal = await permit(accounts, accounts.of("deleted"))
    assert refusal is not None
    assert refusal.code == "invalid_token"


async def test_lease_that_the_store_forgot_is_taken_anew(leases: MemoryLeases) -> None:
    accounts = Accounts(leases, MemoryLedger())
    account = accounts.of(TOKEN)
    await spend(accounts, account)
    leases.held.clear()  # written off, as that of a lost host
    await settle(accounts)
    await spend(accounts, account)
    assert leases.calls.count("take") == 2


async def test_lease_forgotten_while_more_is_fetched_refuses_nobody(leases: MemoryLeases) -> None:
    leases.caps[TOKEN] = 4
    accounts = Accounts(leases, MemoryLedger())
    account = accounts.of(TOKEN)
    await spend(accounts, account)  # the only permit of its lease
    await accounts.tick()
    accounts.refund(account, account.lease_id)
    accounts.spend(account, 2.0)  # so that the lease isn't idle
    leases.held.clear()
    leases.may_go_on.clear()
    settling = asyncio.create_task(accounts.tick())
    waiting = asyncio.create_task(permit(accounts, account))
    async with asyncio.timeout(30):
        while leases.calls[-2:] != ["settle", "extend"]:
            await asyncio.sleep(0)
        await asyncio.sleep(0)  # both wait now, so they are answered in this order
        await asyncio.sleep(0)
        leases.may_go_on.set()
        assert await waiting is None
        await settling


async def test_refund_is_never_counted(leases: MemoryLeases) -> None:
    leases.caps[TOKEN] = 3
    accounts = Accounts(leases, MemoryLedger())
    account = accounts.of(TOKEN)
    await permit(accounts, account)
    lease_id = accounts.spend(account, 1.0)
    accounts.refund(account, lease_id)
    assert [await spend(accounts, account) for _ in range(4)] == [True, True, True, False]
    await accounts.close()
    assert leases.counts[TOKEN] == 3


async def test_lease_stays_open_while_a_request_may_be_refunded(leases: MemoryLeases) -> None:
    """So that the refund is in the ledger, and can be told twice."""
    leases.caps[TOKEN] = 100
    accounts = Accounts(leases, MemoryLedger())
    account = accounts.of(TOKEN)
    await permit(accounts, account)
    lease_id = accounts.spend(account, 1.0)
    for _ in range(6):
        await accounts.tick()
    assert leases.held
    leases.failure = StoreError("locked")
    accounts.refund(account, lease_id)
    for _ in range(3):
        await accounts.tick()
    leases.failure = None
    for _ in range(3):
        await accounts.tick()
    assert not leases.held
    assert leases.counts[TOKEN] == 0


async def test_refund_after_the_token_was_altered_is_told(leases: MemoryLeases) -> None:
    leases.caps[TOKEN] = 100
    accounts = Accounts(leases, MemoryLedger())
    account = accounts.of(TOKEN)
    await permit(accounts, account)
    lease_id = accounts.spend(account, 1.0)
    accounts.void(TOKEN)
    await accounts.tick()
    assert leases.counts[TOKEN] == 1
    accounts.refund(account, lease_id)
    await accounts.tick()
    assert leases.counts[TOKEN] == 0


async def test_refund_while_the_lease_goes_back_is_told(leases: MemoryLeases) -> None:
    leases.caps[TOKEN] = 100
    accounts = Accounts(leases, MemoryLedger())
    account = accounts.of(TOKEN)
    await permit(accounts, account)
    lease_id = accounts.spend(account, 1.0)
    leases.may_go_on.clear()
    accounts.void(TOKEN)
    leases.is_asked.clear()
    await leases.is_asked.wait()
    accounts.refund(account, lease_id)
    leases.may_go_on.set()
    await accounts.tick()
    assert leases.counts[TOKEN] == 0


async def test_what_the_store_could_not_be_told_is_told_later(
    leases: MemoryLeases, caplog: pytest.LogCaptureFixture
) -> None:
    accounts = Accounts(leases, MemoryLedger())
    account = accounts.of(TOKEN)
    await spend(accounts, account)
    leases.failure = StoreError("locked")
    for _ in range(3):
        await settle(accounts)
    assert await spend(accounts, account)  # a lease is held
    assert caplog.text.count("usage can't be recorded") == 1
    leases.failure = None
    await settle(accounts)
    assert leases.counts[TOKEN] == 2


async def test_without_the_store_only_what_is_held_is_spent(leases: MemoryLeases) -> None:
    accounts = Accounts(leases, MemoryLedger())
    account, other = accounts.of(TOKEN), accounts.of("token-2")
    leases.caps["token-2"] = None
    await spend(accounts, account)
    accounts.lose_store()
    assert await spend(accounts, account)
    refusal = await permit(accounts, other)
    assert refusal is not None
    assert refusal.code == "store_unavailable"
    await settle(accounts)
    assert leases.calls == ["take"]


async def test_end_without_the_store_leaves_leases_to_the_supervisor(
    leases: MemoryLeases,
) -> None:
    accounts = Accounts(leases, MemoryLedger())
    await spend(accounts, accounts.of(TOKEN))
    accounts.lose_store()
    await accounts.close()
    assert leases.calls == ["take"]


async def test_failing_store_refuses_those_who_wait(leases: MemoryLeases) -> None:
    accounts = Accounts(leases, MemoryLedger())
    leases.failure = StoreError("locked")
    refusal = await permit(accounts, accounts.of(TOKEN))
    assert refusal is not None
    assert refusal.code == "store_unavailable"


async def test_full_ledger_refuses_and_gives_the_lease_back(leases: MemoryLeases) -> None:
    accounts = Accounts(leases, MemoryLedger(slots=0))
    refusal = await permit(accounts, accounts.of(TOKEN))
    assert refusal is not None
    assert refusal.code == "store_unavailable"
    await accounts.tick()
    assert not leases.held


async def test_request_that_left_is_not_called(leases: MemoryLeases) -> None:
    accounts = Accounts(leases, MemoryLedger())
    account = accounts.of(TOKEN)
    calls: list[object] = []
    waiter: Callable[[Refusal | None], None] = calls.append
    accounts.want(account, waiter)
    accounts.forget(account, waiter)
    accounts.forget(account, waiter)
    assert await spend(accounts, account)
    assert not calls


async def test_ledger_holds_what_was_spent_at_every_moment(leases: MemoryLeases) -> None:
    ledger = MemoryLedger()
    accounts = Accounts(leases, ledger)
    account = accounts.of(TOKEN)
    for number in range(1, 5):
        await spend(accounts, account)
        assert ledger.cells[account.cell] == number
    assert account.last_used_at == 1.0
    await accounts.close()
    assert ledger.cells[account.cell // SLOT_CELLS * SLOT_CELLS] == 0  # the slot is free again


STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["spend", "send", "refund", "tick", "void", "wait", "fail", "mend", "idle"]
        ),
        st.integers(0, 1),
    ),
    max_size=60,
)


@settings(max_examples=120, deadline=None)
@given(steps=STEPS, cap=st.integers(0, 12))
async def test_two_workers_admit_exactly_the_cap_in_any_order_of_events(
    steps: list[tuple[str, int]], cap: int
) -> None:
    leases = MemoryLeases()
    leases.caps[TOKEN] = cap
    workers = [Accounts(leases, MemoryLedger()) for _ in range(2)]
    spent: list[tuple[Accounts, Account, int]] = []
    unsent: list[tuple[Accounts, Account, int]] = []
    tasks: list[asyncio.Task[None]] = []

    async def take_one(accounts: Accounts) -> None:
        account = accounts.of(TOKEN)
        if await permit(accounts, account) is None:
            spent.append((accounts, account, accounts.spend(account, 1.0)))
            unsent.append(spent[-1])

    for step, which in steps:
        accounts = workers[which]
        match step:
            case "spend":
                tasks.append(asyncio.create_task(take_one(accounts)))
            case "send" if unsent:
                accounts, account, _ = unsent.pop()
                accounts.sent(account)
            case "refund" if unsent:
                accounts, account, lease_id = unsent.pop()
                spent.remove((accounts, account, lease_id))
                accounts.refund(account, lease_id)
            case "tick":
                tasks.append(asyncio.create_task(accounts.tick()))
            case "void":
                accounts.void(TOKEN)
            case "wait":
                await asyncio.sleep(0)
            case "fail" | "mend":
                leases.failure = StoreError("locked") if step == "fail" else None
            case "idle":
                leases.failure = None
                await asyncio.gather(*tasks)
        assert len(spent) <= cap
    leases.failure = None
    await asyncio.gather(*tasks)
    for accounts, account, _ in unsent:
        accounts.sent(account)
    for accounts in workers:
        await settle(accounts)
        await accounts.close()
    assert leases.counts[TOKEN] == len(spent) <= cap
    assert not leases.held
    rest = Accounts(leases, MemoryLedger())
    account = rest.of(TOKEN)
    while await spend(rest, account):
        spent.append((rest, account, 0))
    assert len(spent) == cap
    await rest.close()
