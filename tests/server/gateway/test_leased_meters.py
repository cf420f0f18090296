from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_proxy.errors import Refusal
from llm_proxy.limits import LimitDefaults, Limits, RateLimit
from llm_proxy.server.channel import AskLimits, LimitsAnswer, LimitsState
from llm_proxy.server.gateway.limiter import Limiter
from llm_proxy.server.gateway.meters import Slots
from llm_proxy.server.gateway.remote_limits import RemoteLimits
from llm_proxy.server.host_authority import HostAuthority
from llm_proxy.server.limit_desk import LimitDesk
from tests.server.gateway.limits import Clock, Token, at_once, limited, per_minute

pytestmark = pytest.mark.anyio
IP = "192.0.2.1"


class Host:
    """Workers that share an authority; messages between them are real, the time is not."""

    def __init__(self, *, workers: int = 2, **defaults: Any) -> None:
        self.clock = Clock()
        self.authority = HostAuthority(clock=self.clock)
        self.questions: list[AskLimits] = []
        self.is_stuck = False
        self.desks: list[LimitDesk] = []
        self.limiters: list[Limiter] = []
        for _ in range(workers):
            self.add(workers, LimitDefaults(**defaults))

    def add(self, workers: int, defaults: LimitDefaults) -> None:
        place = len(self.desks)
        remote = RemoteLimits(
            lambda message: self._ask(place, message), workers=workers, clock=self.clock
        )
        self.limiters.append(Limiter(defaults, authority=remote, clock=self.clock))

        def answer(message: LimitsAnswer) -> None:
            copy = msgspec.json.decode(msgspec.json.encode(message), type=LimitsAnswer)
            remote.answered(copy)

        self.desks.append(LimitDesk(self.authority, holder=f"w{place}", answer=answer))

    def _ask(self, place: int, message: AskLimits) -> None:
        self.questions.append(message)
        if not self.is_stuck:
            self.desks[place].put(msgspec.json.decode(msgspec.json.encode(message), type=AskLimits))

    async def admit(self, worker: int, token: Token, address: str = IP) -> Slots[Any]:
        outcome: asyncio.Future[Slots[Any]] = asyncio.get_running_loop().create_future()

        def attempt() -> None:
            try:
                slots = self.limiters[worker].take(token, address, attempt)
            except Refusal as refusal:
                outcome.set_exception(refusal)
            else:
                if slots is not None:
                    outcome.set_result(slots)

        attempt()
        async with asyncio.timeout(30):
            return await outcome

    async def refusal(self, worker: int, token: Token, address: str = IP) -> Refusal:
        with pytest.raises(Refusal) as caught:
            await self.admit(worker, token, address)
        return caught.value

    async def settle(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)

    def tick(self) -> None:
        for limiter in self.limiters:
            limiter.check(0.0)

    async def close(self) -> None:
        for desk in self.desks:
            await desk.close()


async def test_rate_holds_over_all_workers() -> None:
    host = Host(token=per_minute(5))
    for number in range(5):
        await host.admit(number % 2, Token())
    for worker in (0, 1):
        refused = await host.refusal(worker, Token())
        assert refused.code == "rate_limited"
        assert refused.headers["Retry-After"] == "13"  # the way to a worker is counted in
    host.clock.advance(12.1)
    await host.admit(1, Token())
    assert await host.refusal(0, Token())
    await host.close()


async def test_a_refusal_is_believed_for_a_second() -> None:
    host = Host(token=per_minute(1))
    await host.admit(0, Token())
    await host.refusal(0, Token())
    asked = len(host.questions)
    for _ in range(10):
        assert (await host.refusal(0, Token())).headers["Retry-After"] in ("60", "61")
    assert len(host.questions) == asked
    host.clock.advance(1.01)
    await host.refusal(0, Token())
    assert len(host.questions) == asked + 1
    await host.close()


async def test_concurrency_holds_over_all_workers_and_frees_at_once() -> None:
    host = Host(token=at_once(2))
    slots = [await host.admit(worker, Token()) for worker in (0, 1)]
    for worker in (0, 1):
        assert (await host.refusal(worker, Token())).code == "concurrency_limited"
    host.limiters[0].give_back(slots[0])
    await host.settle()
    await host.admit(1, Token())
    await host.refusal(0, Token())
    await host.close()
    assert host.authority.slots == 0


async def test_requests_of_one_turn_are_asked_for_together() -> None:
    host = Host(token=per_minute(100), total=at_once(1000))
    await asyncio.gather(*(host.admit(0, Token(token_id=str(n))) for n in range(20)))
    assert len(host.questions) <= 2
    assert host.limiters[0].running == 20
    await host.close()


async def test_many_requests_of_one_key_all_get_their_answer() -> None:
    host = Host(token=per_minute(30))
    outcomes = await asyncio.gather(
        *(host.admit(n % 2, Token()) for n in range(50)), return_exceptions=True
    )
    refused = [one for one in outcomes if isinstance(one, Refusal)]
    assert len(refused) == 20
    assert {one.code for one in refused} == {"rate_limited"}
    await host.close()


async def test_high_rates_are_asked_for_ahead() -> None:
    host = Host(token=Limits(rate=RateLimit(1000, 1, 1000)))
    for _ in range(1000):
        host.limiters[0].give_back(await host.admit(0, Token()))
        host.clock.advance(0.001)
    assert len(host.questions) < 60
    await host.close()


async def test_permits_that_end_unused_go_back() -> None:
    host = Host(token=per_minute(1))
    token = Token()
    host.limiters[0].refund(await host.admit(0, token))
    host.clock.advance(0.2)
    host.tick()
    await host.settle()
    host.clock.advance(0.2)  # what was drained meanwhile isn't given twice
    await host.admit(1, token)
    await host.close()


async def test_refunded_permit_is_used_by_the_next() -> None:
    host = Host(token=per_minute(1))
    host.limiters[0].refund(await host.admit(0, Token()))
    asked = len(host.questions)
    await host.admit(0, Token())
    assert len(host.questions) == asked
    await host.close()


async def test_late_refund_goes_to_the_authority() -> None:
    host = Host(token=per_minute(1))
    slots = await host.admit(0, Token())
    host.clock.advance(0.5)
    host.limiters[0].refund(slots)
    await host.settle()
    host.clock.advance(0.7)
    await host.admit(1, Token())
    await host.close()


async def test_unused_slots_of_a_large_limit_go_back_within_two_ticks() -> None:
    host = Host(total=at_once(100))
    running = [await host.admit(0, Token()) for _ in range(40)]
    assert 40 <= host.authority.slots <= 52
    for slots in running:
        host.limiters[0].give_back(slots)
    await host.settle()
    assert 0 < host.authority.slots <= 12
    host.tick()
    host.tick()
    await host.settle()
    assert host.authority.slots == 0
    await host.close()


async def test_slots_held_ahead_never_keep_the_last_from_others_for_long() -> None:
    host = Host(total=at_once(8))
    first = [await host.admit(0, Token()) for _ in range(7)]
    await host.admit(1, Token())
    assert (await host.refusal(1, Token())).code == "overloaded"
    host.limiters[0].give_back(first[0])
    host.tick()
    host.tick()
    await host.settle()
    host.clock.advance(0.03)
    await host.admit(1, Token())
    await host.close()


async def test_worker_that_died_holds_no_slot() -> None:
    host = Host(token=at_once(1))
    await host.admit(0, Token())
    await host.refusal(1, Token())
    await host.desks[0].close()
    await host.admit(1, Token())
    await host.close()


async def test_stuck_authority_refuses_after_two_seconds_and_then_at_once() -> None:
    host = Host(token=per_minute(5))
    host.is_stuck = True
    waiting = asyncio.create_task(host.refusal(0, Token()))
    await host.settle()
    host.clock.advance(1.9)
    host.tick()
    await host.settle()
    assert not waiting.done()
    host.clock.advance(0.2)
    host.tick()
    refused = await waiting
    assert (refused.status_code, refused.code) == (503, "limits_unavailable")
    assert (await host.refusal(0, Token())).code == "limits_unavailable"
    host.is_stuck = False
    (question,) = host.questions
    host.desks[0].put(question)
    await host.settle()
    host.clock.advance(0.2)
    await host.admit(0, Token())
    await host.close()


async def test_authority_that_is_gone_refuses_what_is_limited_only() -> None:
    host = Host()
    authority = host.limiters[0].authority
    assert authority is not None
    waiting = asyncio.create_task(host.refusal(0, Token(token_limits=limited("1/min"))))
    await asyncio.sleep(0)
    authority.end()
    assert (await waiting).code == "limits_unavailable"
    await host.admit(0, Token())
    await host.close()


async def test_request_that_left_is_not_called() -> None:
    host = Host(token=per_minute(5))

    def left() -> None:
        raise AssertionError("it has left")

    assert host.limiters[0].take(Token(), IP, left) is None
    host.limiters[0].cancel(left)
    await host.settle()
    await host.admit(0, Token())
    await host.close()


async def test_altered_limits_hold_with_what_runs() -> None:
    host = Host()
    running = [await host.admit(0, Token(token_limits=limited("9/min"))) for _ in range(3)]
    refused = await host.refusal(0, Token(token_limits=limited("9/min", concurrent=2)))
    assert refused.code == "concurrency_limited"
    for slots in running:
        host.limiters[0].give_back(slots)
    await host.admit(0, Token(token_limits=limited("9/min", concurrent=2)))
    await host.close()


async def test_total_is_not_charged_for_what_a_token_refuses() -> None:
    host = Host(total=per_minute(3))
    busy = Token(token_id="busy", token_limits=limited("1/min"))
    await host.admit(0, busy)
    for worker in (0, 1):
        for _ in range(5):
            assert (await host.refusal(worker, busy)).details["limit"] == "token"
    for worker in (0, 1):
        await host.admit(worker, Token(token_id="other"))
    assert (await host.refusal(0, Token(token_id="other"))).details["limit"] == "total"
    await host.close()


steps = st.lists(
    st.tuples(
        st.sampled_from(["take", "take", "take", "end", "refund", "tick", "wait"]),
        st.integers(0, 2),
        st.sampled_from([0, 0.0001, 0.01, 0.1, 0.3, 1.0]),
    ),
    max_size=60,
)


@settings(max_examples=60)
@given(
    steps=steps,
    rate=st.sampled_from([RateLimit(2, 1, 3), RateLimit(100, 1, 20), RateLimit(5, 60, 1)]),
    most=st.sampled_from([2, 30]),
)
async def test_no_schedule_of_workers_passes_more_than_any_limit(
    steps: list[tuple[str, int, float]], rate: RateLimit, most: int
) -> None:
    host = Host(workers=3, token=Limits(rate=rate), total=at_once(most))
    running: list[tuple[int, int, Slots[Any]]] = []  # worker, number of the request
    admitted: dict[int, int] = {}  # when, by number of the request
    for number, (step, which, seconds) in enumerate(steps):
        host.clock.advance(seconds)
        if step == "take":
            for request in range(number * 3, number * 3 + 3):
                with suppress(Refusal):
                    running.append((which, request, await host.admit(which, Token())))
                    admitted[request] = host.clock.now
        elif step == "tick":
            host.tick()
        elif running and step in ("end", "refund"):
            worker, of, slots = running.pop(which % len(running))
            if step == "refund":
                host.limiters[worker].refund(slots)
                del admitted[of]
            else:
                host.limiters[worker].give_back(slots)
        await host.settle()
        assert len(running) <= host.authority.slots <= most
    interval = rate.window_s * 10**9 // rate.requests
    moments = sorted(admitted.values())
    for first in range(len(moments)):
        for last in range(first, len(moments)):
            extra = last - first + 1 - rate.burst
            assert extra * interval <= moments[last] - moments[first]
    for worker, _, slots in running:
        host.limiters[worker].give_back(slots)
    for _ in range(2):
        host.tick()
        await host.settle()
    assert host.authority.slots == 0
    await host.close()


async def test_permits_that_come_too_late_go_back() -> None:
    host = Host(token=per_minute(1))
    host.is_stuck = True
    waiting = asyncio.create_task(host.admit(0, Token()))
    await host.settle()
    answers: list[LimitsAnswer] = []
    desk = LimitDesk(host.authority, holder="w0", answer=answers.append)
    desk.put(host.questions[0])
    await host.settle()
    host.clock.advance(0.2)  # on its way
    host.is_stuck = False
    remote = host.limiters[0].authority
    assert remote is not None
    remote.answered(answers[0])
    host.clock.advance(0.3)  # less than it is given back late
    await waiting
    await desk.close()
    await host.close()


async def test_what_a_worker_counted_by_itself_is_shared_with_the_next() -> None:
    """As in a reload of a server with one worker."""
    host = Host(workers=0)
    defaults = LimitDefaults(
        token=Limits(rate=RateLimit(5, 60, 5), max_concurrent=4), client_ip=per_minute(100)
    )
    old = Limiter(defaults, clock=host.clock)
    slots = [old.take(Token(), IP, lambda: None) for _ in range(3)]
    host.add(1, defaults)  # its desk and messages; the limiter is the next one
    idle = old.take(Token(token_id="idle"), "192.0.2.2", lambda: None)
    assert idle is not None
    old.refund(idle)
    host.add(2, defaults)
    authority = host.limiters[0].authority
    assert authority is not None
    host.desks[0].adopt(old.share(authority))
    host.limiters[0] = old
    assert host.authority.slots == 3
    host.clock.advance(0.2)
    assert (await host.refusal(1, Token(token_limits=limited(concurrent=3)))).code == (
        "concurrency_limited"
    )
    await host.admit(1, Token())
    refused = await host.refusal(0, Token())
    assert refused.code == "concurrency_limited"
    for one in slots:
        assert one is not None
        old.give_back(one)
    for _ in range(2):
        host.tick()
        old.check(0.0)
    await host.settle()
    assert host.authority.slots == 1
    await host.admit(0, Token())  # the fifth
    assert (await host.refusal(1, Token())).code == "rate_limited"
    assert old.running == 1
    await host.close()


async def test_sharing_twice_changes_nothing() -> None:
    host = Host(token=per_minute(5))
    authority = host.limiters[0].authority
    assert authority is not None
    assert host.limiters[0].share(authority) == LimitsState()
    await host.close()


async def test_refund_of_what_was_taken_before_sharing_frees_the_slot() -> None:
    host = Host(workers=0)
    old = Limiter(LimitDefaults(token=at_once(1)), clock=host.clock)
    slots = old.take(Token(), IP, lambda: None)
    assert slots is not None
    host.add(1, LimitDefaults(token=at_once(1)))
    authority = host.limiters[0].authority
    assert authority is not None
    host.desks[0].adopt(old.share(authority))
    assert host.authority.slots == 1
    old.refund(slots)
    await host.settle()
    assert host.authority.slots == 0
    await host.close()
