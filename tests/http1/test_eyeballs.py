from __future__ import annotations

import asyncio

import pytest

from llm_proxy.http1.eyeballs import first_connected, interleave

pytestmark = pytest.mark.anyio


class Line:
    def __init__(self, address: str) -> None:
        self.address = address
        self.is_aborted = False

    def abort(self) -> None:
        self.is_aborted = True


class Network:
    """Addresses named after what they do: `refused…`, `silent…`, `slow…`, else they connect."""

    def __init__(self) -> None:
        self.tried: list[str] = []
        self.cancelled: list[str] = []
        self.lines: list[Line] = []
        self.may_answer = asyncio.Event()

    async def connect(self, address: str) -> Line:
        self.tried.append(address)
        try:
            if address.startswith("slow"):
                await self.may_answer.wait()
            elif address.startswith("silent"):
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.append(address)
            if address != "silent stubborn":
                raise
        if address.startswith("refused"):
            raise ConnectionRefusedError(address)
        self.lines.append(Line(address))
        return self.lines[-1]

    async def race(self, *addresses: str, stagger_s: float = 0.01) -> tuple[str, list[str]]:
        """The winner, and who is left."""
        left = list(addresses)
        async with asyncio.timeout(30):
            address, line = await first_connected(left, self.connect, stagger_s=stagger_s)
        assert line.address == address
        assert not line.is_aborted
        return address, left


@pytest.mark.parametrize(
    ("addresses", "expected"),
    [
        (["::1", "::2", "1", "2", "3"], ["::1", "1", "::2", "2", "3"]),
        (["1", "2", "::1"], ["1", "::1", "2"]),
        (["1"], ["1"]),
        (["::1", "::2"], ["::1", "::2"]),
    ],
)
def test_families_take_turns(addresses: list[str], expected: list[str]) -> None:
    assert interleave(addresses) == expected


async def test_first_that_answers_is_the_only_one_tried() -> None:
    network = Network()
    assert await network.race("a", "b", stagger_s=5) == ("a", ["b"])
    assert network.tried == ["a"]


async def test_refusal_moves_on_at_once() -> None:
    network = Network()
    assert await network.race("refused 1", "refused 2", "c", "d", stagger_s=5) == ("c", ["d"])


async def test_silence_moves_on_after_the_stagger_and_loses() -> None:
    network = Network()
    assert await network.race("silent", "b", "c") == ("b", ["silent", "c"])
    assert network.tried == ["silent", "b"]
    assert network.cancelled == ["silent"]


async def test_slow_one_still_wins_over_later_ones_that_fail() -> None:
    network = Network()
    race = asyncio.create_task(network.race("slow", "refused", "silent"))
    while len(network.tried) < 3:
        await asyncio.sleep(0.001)
    network.may_answer.set()
    assert await race == ("slow", ["silent"])


async def test_last_error_is_told_when_all_fail() -> None:
    network = Network()
    left = ["refused 1", "refused 2"]
    with pytest.raises(ConnectionRefusedError, match="refused 2"):
        await first_connected(left, network.connect, stagger_s=5)
    assert left == []


async def test_single_address_is_tried_without_a_race() -> None:
    network = Network()
    assert await network.race("a") == ("a", [])
    with pytest.raises(ConnectionRefusedError):
        await network.race("refused")


async def test_loser_that_connects_all_the_same_is_closed() -> None:
    network = Network()
    address, _ = await network.race("silent stubborn", "b")
    assert address == "b"
    assert [(line.address, line.is_aborted) for line in network.lines] == [
        ("b", False),
        ("silent stubborn", True),
    ]


async def test_all_end_when_nobody_waits_any_more() -> None:
    network = Network()
    race = asyncio.create_task(network.race("silent 1", "silent 2"))
    while len(network.tried) < 2:
        await asyncio.sleep(0.001)
    race.cancel()
    with pytest.raises(asyncio.CancelledError):
        await race
    assert network.cancelled == ["silent 1", "silent 2"]
