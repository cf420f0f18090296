"""What was typed at the prompt, in a file for its owner alone: a JSON string a line."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

import msgspec

from llm_proxy.errors import ConfigError
from llm_proxy.home import write_private

KEPT: Final = 1000  # entries; the file is cut back when it has twice as many
_LONGEST: Final = 20_000  # characters; what is longer was pasted, and isn't typed again


class HistoryFile:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._count = 0

    def load(self) -> list[str]:
        """The oldest first; lines that aren't ours are passed over."""
        try:
            lines = self._path.read_bytes().split(b"\n")
        except FileNotFoundError:
            return []
        except OSError as exc:
            raise ConfigError(
                f"the history {self._path} can't be read ({exc.strerror or exc}); "
                "leave it out with --no-history"
            ) from exc
        entries = [entry for line in lines if (entry := _decoded(line)) is not None]
        self._count = len(entries)
        if len(entries) > 2 * KEPT:
            self._cut(entries)
        return entries[-KEPT:]

    def add(self, entry: str) -> None:
        if not entry.strip() or len(entry) > _LONGEST:
            return
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            descriptor = os.open(self._path, flags, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(msgspec.json.encode(entry) + b"\n")  # at once: sessions share the file
        except OSError:
            return  # a full disk is no reason to end a conversation
        self._count += 1
        if self._count > 2 * KEPT:
            with contextlib.suppress(ConfigError):
                self.load()

    def _cut(self, entries: list[str]) -> None:
        kept = entries[-KEPT:]
        text = b"".join(msgspec.json.encode(entry) + b"\n" for entry in kept).decode()
        write_private(self._path, text)
        self._count = len(kept)


def _decoded(line: bytes) -> str | None:
    try:
        return msgspec.json.decode(line, type=str)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
