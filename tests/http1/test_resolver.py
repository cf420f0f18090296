from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Sequence

import pytest

from llm_proxy.http1.resolver import FAILED_S, FRESH_S, ResolveError, Resolver, look_up

pytestmark = pytest.mark.anyio

LIMIT_S = 30.0


class Names:
    """A lookup whose answers a test gives; `gate` holds answers back while it is cleared."""

    def __init__(self, *answers: Sequence[str] | Exception, patience_s: float = LIMIT_S) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []
        self.now = 100.0
        self.gate = threading.Event()
        self.gate.set()
        self.resolver = Resolver(self._look_up, clock=lambda: self.now, patience_s=patience_s)

    def _look_up(self, host: str) -> Sequence[str]:
        self.asked.append(host)
        answer = self.answers.pop(0)
        assert self.gate.wait(LIMIT_S)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def resolve(self, host: str = "a.test") -> tuple[str, ...]:
        async with asyncio.timeout(LIMIT_S):
            return await self.resolver.resolve(host)


FAILURE = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")


async def test_answer_is_remembered_for_its_time() -> None:
    names = Names(["192.0.2.1", "2001:db8::1"], ["192.0.2.2"])
    assert await names.resolve() == ("192.0.2.1", "2001:db8::1")
    names.now += FRESH_S - 0.1
    assert await names.resolve() == ("192.0.2.1", "2001:db8::1")
    names.now += 0.1
    assert await names.resolve() == ("192.0.2.2",)
    assert names.asked == ["a.test"] * 2


@pytest.mark.parametrize(
    "failure",
    [FAILURE, OSError("no route"), UnicodeError("label too long"), []],
    ids=["gaierror", "oserror", "unicode", "empty"],
)
async def test_failure_is_remembered_shortly(failure: Sequence[str] | Exception) -> None:
    names = Names(failure, ["192.0.2.1"])
    for _ in range(3):
        with pytest.raises(ResolveError):
            await names.resolve()
    assert len(names.asked) == 1
    names.now += FAILED_S
    assert await names.resolve() == ("192.0.2.1",)


async def test_all_who_ask_share_one_look_up() -> None:
    names = Names(["192.0.2.1"])
    names.gate.clear()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(names.resolve()) for _ in range(50)]
        await asyncio.sleep(0)
        names.gate.set()
    assert {task.result() for task in tasks} == {("192.0.2.1",)}
    assert len(names.asked) == 1


async def test_hung_look_up_piles_up_no_threads_and_holds_up_no_other_name() -> None:
    names = Names(["192.0.2.1"], ["192.0.2.2"])
    names.gate.clear()
    for _ in range(20):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await names.resolver.resolve("hung.test")
    async with asyncio.timeout(LIMIT_S):
        while not names.asked:
            await asyncio.sleep(0.001)
    assert [one.name for one in threading.enumerate()].count("look-up of hung.test") == 1
    other = asyncio.create_task(names.resolve("b.test"))
    await asyncio.sleep(0)
    names.gate.set()
    assert await other == ("192.0.2.2",)
    assert await names.resolve("hung.test") == ("192.0.2.1",)  # its late answer counts
    assert names.asked == ["hung.test", "b.test"]


async def test_failed_refresh_keeps_the_last_answer_and_says_so_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    names = Names(["192.0.2.1"], FAILURE, FAILURE, ["192.0.2.2"], FAILURE)
    await names.resolve()
    for pause in (FRESH_S, FAILED_S / 2, FAILED_S):
        names.now += pause
        assert await names.resolve() == ("192.0.2.1",)
    assert len(names.asked) == 3
    assert [record.getMessage() for record in caplog.records] == [
        "a.test can't be resolved any more (Temporary failure in name resolution): "
        "its last addresses are used"
    ]
    names.now += FAILED_S
    assert await names.resolve() == ("192.0.2.2",)
    names.now += FRESH_S
    assert await names.resolve() == ("192.0.2.2",)
    assert len(caplog.records) == 2
    assert all(record.levelno == logging.WARNING for record in caplog.records)


async def test_slow_refresh_is_not_waited_for_long() -> None:
    names = Names(["192.0.2.1"], ["192.0.2.2"], patience_s=0.02)
    await names.resolve()
    names.now += FRESH_S
    names.gate.clear()
    assert await names.resolve() == ("192.0.2.1",)
    names.gate.set()
    while await names.resolve() != ("192.0.2.2",):
        await asyncio.sleep(0.001)
    assert len(names.asked) == 2


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("127.1", "127.0.0.1"),
        ("::1", "::1"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("fe80::1%1", "fe80::1%1"),
    ],
)
async def test_literal_needs_no_look_up(host: str, address: str) -> None:
    names = Names()
    assert await names.resolve(host) == (address,)
    assert names.asked == []


async def test_no_thread_is_a_failure_like_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    names = Names(["192.0.2.1"])
    with monkeypatch.context() as context:
        context.setattr(threading.Thread, "start", refuse)
        with pytest.raises(ResolveError, match="can't start new thread"):
            await names.resolve()
    names.now += FAILED_S
    assert await names.resolve() == ("192.0.2.1",)


def test_answer_for_a_loop_that_is_gone_is_dropped() -> None:
    names = Names(["192.0.2.1"])
    names.gate.clear()

    async def ask_in_vain() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await names.resolver.resolve("a.test")

    asyncio.run(ask_in_vain())
    (thread,) = [one for one in threading.enumerate() if one.name == "look-up of a.test"]
    names.gate.set()
    thread.join(LIMIT_S)
    assert not thread.is_alive()  # and pytest would tell of an exception in it


def test_system_is_asked_by_default() -> None:
    assert "127.0.0.1" in look_up("localhost")
    with pytest.raises(OSError):
        look_up("upstream.invalid")
