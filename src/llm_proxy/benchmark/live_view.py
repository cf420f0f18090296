"""What a person sees on the terminal while a run is under way."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console

from llm_proxy.benchmark.live import Live


class LiveView:
    """A few lines that are redrawn four times a second and gone at the end; quiet in a pipe.

    `console` is one on stderr. The totals are those of a phase that names none of its own.
    """

    def __init__(
        self,
        console: Console,
        *,
        title: str,
        total_s: float | None,
        total_requests: int | None,
    ) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        raise NotImplementedError

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        raise NotImplementedError

    def phase(
        self, text: str, *, total_s: float | None = None, total_requests: int | None = None
    ) -> None:
        """What begins now, such as "warm-up", "run 2 of 5" or "probing 400/s"."""
        raise NotImplementedError

    def update(self, live: Live) -> None:
        """Cheap, however often it is called."""
        raise NotImplementedError
