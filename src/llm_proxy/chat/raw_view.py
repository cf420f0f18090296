"""An answer as it was written, for pipes, files and terminals that can't do more."""

from __future__ import annotations

from types import TracebackType
from typing import Self, TextIO

from llm_proxy.chat.plain_text import PlainText
from llm_proxy.errors import LLMProxyError


class RawView:
    """Use it as a context manager; the text ends with its line."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        # A file gets every character, a terminal those that do no harm.
        self._clean = PlainText() if file.isatty() else None
        self._last = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if isinstance(exc, OSError) or (exc is not None and isinstance(exc.__cause__, OSError)):
            return  # whoever read it has gone, or the disk is full
        if self._clean is not None:
            self._put(self._clean.finish())
        if self._last and not self._last.endswith("\n"):
            self._put("\n")

    def add(self, text: str) -> None:
        self._put(text if self._clean is None else self._clean.feed(text))

    def _put(self, text: str) -> None:
        if not text:
            return
        try:
            self._file.write(text)
            self._file.flush()
        except BrokenPipeError:
            raise
        except OSError as exc:
            raise LLMProxyError(f"the answer can't be written: {exc.strerror or exc}") from exc
        self._last = text[-1]
