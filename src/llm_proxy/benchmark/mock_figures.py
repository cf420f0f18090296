"""What a throw-away mock tells of itself when a run has ended."""

from __future__ import annotations

from typing import Final

import msgspec


class MockFigures(msgspec.Struct, frozen=True, kw_only=True):
    cpu_share: float | None = None  # of a core; None of a run that was too short
    hang_ups: int | None = None  # that it saw; None when it couldn't be asked


NOT_WATCHED: Final = MockFigures()
