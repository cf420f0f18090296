"""How many files, connections included, this process and those it starts may have open."""

from __future__ import annotations

import resource
from typing import Final

ENOUGH: Final = 10_000
_MOST: Final = 1 << 20  # beyond it, programs that look at every possible one become slow
_MOST_ON_MACOS: Final = 10_240  # OPEN_MAX, where the hard limit says "infinity" and means this


def raise_descriptor_limit() -> int:
    """Lifts the soft limit to the hard one, and gives what it is now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in (_within(hard, _MOST), _within(hard, _MOST_ON_MACOS)):
        if soft != resource.RLIM_INFINITY and soft < wanted:
            try:
                resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            except (OSError, ValueError):
                continue
            soft = wanted
    return _within(soft, _MOST)


def _within(limit: int, most: int) -> int:
    return most if limit == resource.RLIM_INFINITY else min(limit, most)


def descriptor_warning(limit: int) -> str | None:
    if limit >= ENOUGH:
        return None
    return (
        f"only {limit} files may be open at once in each process, connections included; raise the "
        f"hard limit to {ENOUGH} or more (ulimit -Hn, or LimitNOFILE= in a systemd unit)"
    )
