"""How many tokens that don't exist may be looked up, so that guessing is no load on the store."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from llm_proxy.server.gateway.client_address import network_of

PER_ADDRESS: Final = 20  # look-ups a second that find nothing, for a client address
IN_ALL: Final = 200  # for addresses that guessed before
REMEMBERED: Final = 100_000  # addresses; more at once are taken for one

_MEMORY_S: Final = 60.0  # of addresses that guessed


class Guesses:
    """A client that never guessed is looked up whatever others do; an IPv6 client is its /64.

    What is under way when a budget is used up is let through: it may be no guess.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._second = 0
        self._in_second: dict[str, int] = {}
        self._all_in_second = 0
        self._guessers: dict[str, float] = {}  # until when they are remembered, the oldest first

    def may_look_up(self, client_ip: str) -> bool:
        self._turn()
        network = network_of(client_ip)
        if self._in_second.get(network, 0) >= PER_ADDRESS:
            return False
        is_guesser = network in self._guessers or len(self._guessers) >= REMEMBERED
        return not is_guesser or self._all_in_second < IN_ALL

    def missed(self, client_ip: str) -> None:
        """A look-up for this client found nothing."""
        self._turn()
        network = network_of(client_ip)
        self._in_second[network] = self._in_second.get(network, 0) + 1
        self._all_in_second += 1
        self._guessers.pop(network, None)
        self._guessers[network] = self._clock() + _MEMORY_S

    def _turn(self) -> None:
        now = self._clock()
        if int(now) == self._second:
            return
        self._second = int(now)
        self._in_second.clear()
        self._all_in_second = 0
        guessers = self._guessers
        while guessers and guessers[first := next(iter(guessers))] <= now:
            del guessers[first]
