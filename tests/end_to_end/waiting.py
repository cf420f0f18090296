"""Waiting for what another process does, with a limit."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(look: Callable[[], T | None], *, within_s: float = 30.0) -> T:
    """What `look` gives once that is true; fails with the last of it when time is up."""
    deadline = time.monotonic() + within_s
    while not (seen := look()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not so within {within_s:g} s; the last that was seen: {seen!r}")
        time.sleep(0.01)
    return seen
