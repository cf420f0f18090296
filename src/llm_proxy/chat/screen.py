"""What a session shows, without saying how."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol


class AnswerView(Protocol):
    """Where one answer appears as it comes."""

    def add(self, text: str) -> None: ...


class Screen(Protocol):
    def answer(self) -> AbstractContextManager[AnswerView]:
        """Open for as long as the answer comes."""
        ...

    def figures(self, line: str) -> None:
        """Below an answer."""
        ...

    def tell(self, line: str) -> None: ...

    def fail(self, line: str) -> None: ...

    def table(self, rows: Sequence[tuple[str, str]]) -> None: ...
