"""The sink that appends lines to a file, rotates it by size and survives a full disk."""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

logger = logging.getLogger(__name__)

_MAX_PENDING: Final = 8 << 20  # bytes kept while the file can't be written
_RETRY_S: Final = 1.0
_WATCH_S: Final = 1.0  # how often to look whether the file was moved away or truncated
_ROTATION_RETRY_S: Final = 60.0


class FileSink:
    """Writes whole lines or, while it can't, keeps some and counts the others."""

    def __init__(
        self,
        path: Path,
        *,
        max_bytes: int,
        max_backups: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`max_backups` files PATH.1 (the newest), PATH.2, … are kept; with 0 a full file goes."""
        self._path = path
        self._max_bytes = max_bytes
        self._max_backups = max_backups
        self._clock = clock
        self._file: int | None = None
        self._size = 0
        self._can_rotate = False
        self._no_rotation_before = 0.0
        self._watch_at = 0.0
        self._pending = bytearray()  # lines; the first may be the rest of one
        self._is_torn = False  # the last write ended inside a line
        self._failed_at: float | None = None
        self._dropped = 0  # lines, not yet taken
        self.lost = 0  # lines in all

    def open(self) -> None:
        """Raises OSError when the file can't be opened for appending."""
        # Without NONBLOCK a FIFO that nobody reads would hold the writer here.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        self._file = os.open(self._path, flags, 0o600)
        status = os.fstat(self._file)
        self._can_rotate = stat.S_ISREG(status.st_mode)
        self._size = status.st_size
        self._watch_at = self._clock() + _WATCH_S
        self._forget_torn_line()
        is_mended = self._pending.startswith(b"\n")
        if self._can_rotate and self._size and not is_mended and not _ends_with_newline(self._path):
            self._pending[:0] = b"\n"  # a crash cut the last line: the next starts on its own

    def write(self, lines: bytes) -> None:
        """Takes whole lines; never raises, and waits for nothing but the file."""
        if self._failed_at is not None:
            lines = self._what_fits(lines)
        self._pending += lines
        self.flush()

    def flush(self) -> None:
        """Writes what is pending, unless the last try failed less than a second ago."""
        now = self._clock()
        if self._failed_at is not None and now < self._failed_at + _RETRY_S:
            return
        try:
            if now >= self._watch_at:
                self._follow_name(now)
            while self._pending:
                self._write_some()
        except OSError as exc:
            self._note_failure(exc, now)
        else:
            self._note_success()

    def wait_s(self) -> float | None:
        """When `flush` should be called without a new line; None: needn't be."""
        if self._failed_at is None:
            return None
        return max(0.0, self._failed_at + _RETRY_S - self._clock())

    def take_dropped(self) -> int:
        """Lines lost since this was last asked, once the file can be written again."""
        if self._failed_at is not None:
            return 0
        dropped, self._dropped = self._dropped, 0
        return dropped

    def reopen(self) -> None:
        """Continues in a new file where the old one was moved away."""
        self._close_file()
        self._failed_at = None
        self._no_rotation_before = 0.0
        try:
            self.open()
        except OSError as exc:
            self._note_failure(exc, self._clock())
        else:
            self.flush()

    def close(self) -> None:
        """A last try, then to the disk; says what is lost."""
        if self._failed_at is not None:
            self._failed_at -= _RETRY_S
        self.flush()
        self.lost += self._pending.count(b"\n")
        lost = self._dropped + self._pending.count(b"\n")
        if lost:
            logger.error("%d records were lost: %s can't be written", lost, self._path)
        self._close_file(sync=True)

    # ---- writing ----

    def _write_some(self) -> None:
        if self._file is None:
            self.open()
            return  # what is pending may have changed
        end = self._writable_bytes()
        if end == 0:
            self._rotate()
            return
        with memoryview(self._pending) as view, view[:end] as chunk:
            written = os.write(self._file, chunk)
        self._is_torn = self._pending[written - 1] != ord("\n")
        self._size += written
        del self._pending[:written]

    def _writable_bytes(self) -> int:
        """How much of what is pending belongs into this file; 0: rotate first."""
        if self._is_torn:
            return self._pending.index(b"\n") + 1
        if not self._wants_rotation():
            return len(self._pending)
        fitting = self._pending.rfind(b"\n", 0, max(0, self._max_bytes - self._size)) + 1
        if not fitting and self._size == 0:
            return self._pending.index(b"\n") + 1  # a line larger than a file gets one of its own
        return fitting

    def _wants_rotation(self) -> bool:
        return (
            self._can_rotate
            and self._size + len(self._pending) > self._max_bytes
            and self._clock() >= self._no_rotation_before
        )

    def _rotate(self) -> None:
        """PATH becomes PATH.1, PATH.1 becomes PATH.2 and so on; the last one goes."""
        try:
            if self._max_backups == 0:
                self._path.unlink(missing_ok=True)
            else:
                self._shift_backups()
        except OSError as exc:
            self._no_rotation_before = self._clock() + _ROTATION_RETRY_S
            logger.warning("%s can't be rotated, it goes on growing: %s", self._path, exc)
        else:
            self._close_file()
            self.open()

    def _shift_backups(self) -> None:
        free = 1
        while free < self._max_backups and self._backup(free).exists():
            free += 1
        for number in range(free, 0, -1):
            with contextlib.suppress(FileNotFoundError):
                self._backup(number - 1).replace(self._backup(number))

    def _backup(self, number: int) -> Path:
        if number == 0:
            return self._path
        return self._path.with_name(f"{self._path.name}.{number}")

    def _follow_name(self, now: float) -> None:
        """Goes on under the name that was given, when somebody moved or removed the file."""
        self._watch_at = now + _WATCH_S
        if self._file is None or not self._can_rotate:
            return
        status = os.fstat(self._file)
        self._size = status.st_size  # it may have been truncated
        try:
            is_in_place = os.path.samestat(self._path.stat(), status)
        except FileNotFoundError:
            is_in_place = False
        if not is_in_place:
            self._close_file()

    def _close_file(self, *, sync: bool = False) -> None:
        if self._file is None:
            return
        file, self._file = self._file, None
        with contextlib.suppress(OSError):  # pipes and devices can't be synced
            if sync:
                os.fsync(file)
        with contextlib.suppress(OSError):
            os.close(file)

    # ---- failing ----

    def _what_fits(self, lines: bytes) -> bytes:
        room = max(0, _MAX_PENDING - len(self._pending))
        if len(lines) <= room:
            return lines
        fitting = lines[: lines.rfind(b"\n", 0, room) + 1]
        self._drop(lines.count(b"\n") - fitting.count(b"\n"))
        return fitting

    def _drop(self, count: int) -> None:
        self._dropped += count
        self.lost += count

    def _forget_torn_line(self) -> None:
        """The rest of a line whose start is in another file is of no use."""
        if self._is_torn:
            del self._pending[: self._pending.index(b"\n") + 1]
            self._drop(1)
            self._is_torn = False

    def _note_failure(self, exc: OSError, now: float) -> None:
        if self._failed_at is None:
            logger.error(
                "%s can't be written (%s): keeping up to %d MiB of records and trying again",
                self._path,
                exc.strerror or exc,
                _MAX_PENDING >> 20,
            )
        self._failed_at = now

    def _note_success(self) -> None:
        if self._failed_at is not None:
            self._failed_at = None
            logger.warning(
                "%s is written again; %d records were dropped", self._path, self._dropped
            )


def _ends_with_newline(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"
    except OSError:
        return False
