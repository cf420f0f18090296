"""Ends a child process with its parent, even a killed one (Linux; elsewhere it lives on)."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from typing import Final

_PR_SET_PDEATHSIG: Final = 1


def ending_with_parent() -> Callable[[], None] | None:
    """For `preexec_fn`: SIGTERM comes when the thread that started the child is gone."""
    if sys.platform != "linux":
        return None
    import ctypes

    try:
        prctl = ctypes.CDLL(None).prctl
    except (OSError, AttributeError):
        return None
    return lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
