"""The audit log's file: one record a line, each on the disk before `append` returns."""

from __future__ import annotations

import contextlib
import logging
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from llm_proxy.audit import AuditRecord, Head, decode_record, encode_record, head_of

logger = logging.getLogger(__name__)

_TAIL_BYTES: Final = 1 << 20  # no line is longer


class AuditFile:
    """Every method may raise OSError; the next one opens the file again, and mends it."""

    def __init__(self, path: Path, *, chain: str, max_bytes: int, max_backups: int) -> None:
        """Rotated files are PATH.1 (the newest), PATH.2 and so on."""
        self.path = path
        self._chain = chain
        self._max_bytes = max_bytes
        self._max_backups = max_backups
        self._file: int | None = None
        self._size = 0
        self.head = Head()  # what is in it
        self.mended: list[str] = []  # what was wrong with it, until somebody records that

    @property
    def paths(self) -> list[Path]:
        """Those there are, the oldest first."""
        numbers = range(self._max_backups, -1, -1)
        return [path for number in numbers if (path := self._backup(number)).exists()]

    def ensure_open(self) -> None:
        """Under its own name, whoever moved it meanwhile; `head` is right then."""
        if self._file is not None and not self._is_in_place():
            self.close()
        if self._file is None:
            before = self.head.sequence
            self._open()
            self._find_head()
            if self.head.sequence < before:
                self.mended.append(f"it ended with {self.head.sequence} after {before} was written")

    def append(self, records: Sequence[AuditRecord]) -> None:
        """They follow `head`, and come after an `ensure_open`."""
        lines = b"".join(encode_record(record) + b"\n" for record in records)
        try:
            if self._size and self._size + len(lines) > self._max_bytes:
                self._rotate()
            assert self._file is not None
            self._write(self._file, lines)
        except BaseException:
            self.close()
            raise
        self.head = head_of(records[-1])

    def read_after(self, sequence: int) -> list[AuditRecord]:
        """Its records from there on; those before the first that is damaged."""
        found = []
        for line in _lines(self.path):
            try:
                record = decode_record(line)
            except ValueError:
                break
            if record.sequence > sequence:
                found.append(record)
        return found

    def set_aside(self, why: str) -> None:
        """It stays as it is under another name, as do its backups, and a new one is begun."""
        number = 1
        while (aside := self._aside(self.path, number)).exists():
            number += 1
        self.mended.append(f"{why}; it is kept as {aside.name}")
        logger.warning("%s: %s; it is kept as %s", self.path, why, aside.name)
        self.close()
        for path in [self._backup(n) for n in range(self._max_backups + 1)]:
            with contextlib.suppress(FileNotFoundError):
                path.replace(self._aside(path, number))
        self.head = Head()
        self._open()

    def close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):
                os.close(file)

    def _write(self, file: int, lines: bytes) -> None:
        left = memoryview(lines)
        while left:
            written = os.write(file, left)
            self._size += written
            left = left[written:]
        os.fsync(file)

    def _open(self) -> None:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        was_there = self.path.exists()
        self._file = os.open(self.path, flags, 0o600)
        status = os.fstat(self._file)
        if not stat.S_ISREG(status.st_mode):
            self.close()
            raise OSError("it isn't a regular file")
        if stat.S_IMODE(status.st_mode) & 0o077:
            os.fchmod(self._file, 0o600)
        self._size = status.st_size
        if not was_there:
            self._sync_folder()

    def _find_head(self) -> None:
        """Cuts off a line that a crash left half written: the store has the whole of it."""
        assert self._file is not None
        tail = _read_tail(self._file, self._size)
        if tail and not tail.endswith(b"\n"):
            torn = len(tail) - (tail.rfind(b"\n") + 1)
            os.ftruncate(self._file, self._size - torn)
            os.fsync(self._file)
            self._size -= torn
            tail = tail[: len(tail) - torn]
            self.mended.append(f"its last line was cut after {torn} bytes")
            logger.warning(
                "%s: the last line was cut off by a crash; it is written anew", self.path
            )
        if tail:
            self._take_head(tail)
        elif not self.head.sequence:
            self._take_head_of_backup()

    def _take_head(self, tail: bytes) -> None:
        try:
            last = decode_record(tail[tail.rfind(b"\n", 0, -1) + 1 : -1])
        except ValueError:
            self.set_aside("its last line is no record")
            return
        if last.chain != self._chain:
            self.set_aside(f"it belongs to the chain {last.chain}")
        else:
            self.head = head_of(last)

    def _take_head_of_backup(self) -> None:
        """The file was rotated just before the end, or removed."""
        with contextlib.suppress(OSError, ValueError), self._backup(1).open("rb") as file:
            tail = _read_tail(file.fileno(), os.fstat(file.fileno()).st_size)
            last = decode_record(tail[tail.rfind(b"\n", 0, -1) + 1 : -1])
            if last.chain == self._chain:
                self.head = head_of(last)

    def _rotate(self) -> None:
        self.close()
        free = 1
        while free < self._max_backups and self._backup(free).exists():
            free += 1
        for number in range(free, 0, -1):
            with contextlib.suppress(FileNotFoundError):
                self._backup(number - 1).replace(self._backup(number))
        self._open()

    def _backup(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}") if number else self.path

    @staticmethod
    def _aside(path: Path, number: int) -> Path:
        return path.with_name(f"{path.name}.aside{number}")

    def _is_in_place(self) -> bool:
        assert self._file is not None
        try:
            return os.path.samestat(self.path.stat(), os.fstat(self._file))
        except FileNotFoundError:
            return False

    def _sync_folder(self) -> None:
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _read_tail(file: int, size: int) -> bytes:
    start = max(0, size - _TAIL_BYTES)
    return os.pread(file, size - start, start)


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        for line in file:
            yield line.removesuffix(b"\n")
