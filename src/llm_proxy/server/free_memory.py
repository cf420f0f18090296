"""Hands memory that isn't in use back to the operating system, from time to time."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Final

INTERVAL_S: Final = 15.0

_ALL: Final = ctypes.c_size_t(0)


class FreeMemory:
    """glibc keeps every page that a burst touched, and bursts touch ever more of them.

    To be watched by `Timers`. Each time takes 0.3 to 1.5 ms where there is something to give.
    """

    def __init__(self, trim: Callable[[ctypes.c_size_t], int] | None = None) -> None:
        """`trim` is the C library's `malloc_trim`; not every one has it."""
        self._trim = trim or getattr(ctypes.CDLL(None), "malloc_trim", None)
        self._due = 0.0

    def check(self, now: float) -> None:
        if self._trim is not None and now >= self._due:
            self._due = now + INTERVAL_S
            self._trim(_ALL)
