"""An alarm that rings on time: event loops round to milliseconds, which is longer than a request.

On Linux it is a timer descriptor (timerfd), right to some 10 µs; elsewhere the loop's own timer.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
from collections.abc import Callable
from time import monotonic_ns
from typing import Final, Protocol

_CLOCK_MONOTONIC: Final = 1
_NONBLOCK_CLOEXEC: Final = os.O_NONBLOCK | os.O_CLOEXEC
_ABSOLUTE: Final = 1


class Alarm(Protocol):
    def set(self, at_ns: int) -> None:
        """Rings once, at this time of `monotonic_ns`, or soon when that has passed."""

    def close(self) -> None: ...


def new_alarm(ring: Callable[[], None]) -> Alarm:
    """`ring` is called on the running loop."""
    if sys.platform == "linux":
        try:
            return TimerFd(ring)
        except (OSError, AttributeError):  # not every C library or sandbox has it
            pass
    return LoopTimer(ring)


class _TimeSpec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _TimerSpec(ctypes.Structure):
    _fields_ = (("interval", _TimeSpec), ("value", _TimeSpec))


class TimerFd:
    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd: int = self._libc.timerfd_create(_CLOCK_MONOTONIC, _NONBLOCK_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._spec = _TimerSpec()
        self._address = ctypes.byref(self._spec)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._fd, self._expire)

    def set(self, at_ns: int) -> None:
        # All zero would disarm it.
        self._spec.value.seconds, self._spec.value.nanoseconds = divmod(max(at_ns, 1), 10**9)
        self._libc.timerfd_settime(self._fd, _ABSOLUTE, self._address, None)

    def _expire(self) -> None:
        try:
            os.read(self._fd, 8)
        except BlockingIOError:  # set anew in the meantime
            return
        self._ring()

    def close(self) -> None:
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1


class LoopTimer:
    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._loop = asyncio.get_running_loop()
        self._handle: asyncio.TimerHandle | None = None

    def set(self, at_ns: int) -> None:
        self.close()
        wait_s = max(0.0, (at_ns - monotonic_ns()) / 1e9)
        self._handle = self._loop.call_later(wait_s, self._ring)

    def close(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
