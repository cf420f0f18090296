"""A worker's ledger: what it spent of its leases, in a memory-mapped file that outlives it.

The file holds a header and then slots of four 64-bit cells: lease, used, last used, nothing. What
is stored in a mapped page is the kernel's, so it is complete however the process ends; only the
machine's own end loses it, and that the boot id tells. The owner holds a lock (flock) on the file
for as long as it lives.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import struct
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from llm_proxy.errors import LedgerError
from llm_proxy.grants import LeaseUse

SLOT_CELLS: Final = 4
USED: Final = 1  # requests since the lease was taken
LAST: Final = 2  # Unix milliseconds; 0: never
_LEASE: Final = 0  # its id; 0: the slot is free

MAX_SLOTS: Final = 1 << 16  # mapped from the start: 2 MiB of addresses, of which few have memory
_MAGIC: Final = b"LLMPLED1"
_HEADER: Final = struct.Struct("=8sQ64s64s")  # magic, inode, boot id, holder
_HEADER_BYTES: Final = 4096
_SLOT_BYTES: Final = SLOT_CELLS * 8
_CHUNK_SLOTS: Final = 2048  # for which disk is set aside at once: 64 KiB
_SUFFIX: Final = ".ledger"


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerContents:
    holder: str
    is_original: bool  # False: this is a copy, so more may have been spent since
    is_of_this_boot: bool  # False: the machine ended since, so more may have been spent before
    uses: Mapping[int, LeaseUse]  # by lease


class Ledger:
    def __init__(self, path: Path, descriptor: int) -> None:
        """Use `create`. `cells` is valid until `close`, however many slots are opened."""
        self.path = path
        self._descriptor = descriptor
        self._mapped = mmap.mmap(descriptor, _HEADER_BYTES + MAX_SLOTS * _SLOT_BYTES)
        self._bytes = memoryview(self._mapped)
        self._slots = self._bytes[_HEADER_BYTES:]
        self.cells = self._slots.cast("Q")  # of a slot, from `slot * SLOT_CELLS` on
        self._free: list[int] = []
        self._begun = 0  # slots that were open at some time
        self._backed = 0  # slots that the disk has room for

    @classmethod
    def create(cls, path: Path, holder: str) -> Ledger:
        """A new file, locked from the moment that it has its name."""
        draft = path.with_name(f".{path.name}")
        try:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            descriptor = os.open(draft, flags, 0o600)
            try:
                ledger = cls._fill(path, descriptor, holder)
                draft.rename(path)
            except BaseException:
                os.close(descriptor)
                draft.unlink(missing_ok=True)
                raise
        except OSError as exc:
            raise LedgerError(f"the ledger {path} can't be made: {exc.strerror or exc}") from exc
        return ledger

    @classmethod
    def _fill(cls, path: Path, descriptor: int, holder: str) -> Ledger:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, _HEADER_BYTES + MAX_SLOTS * _SLOT_BYTES)  # no disk is taken by it
        _set_aside(descriptor, 0, _HEADER_BYTES)
        inode = os.fstat(descriptor).st_ino
        header = _HEADER.pack(_MAGIC, inode, boot_id().encode(), holder.encode())
        os.pwrite(descriptor, header, 0)
        return cls(path, descriptor)

    def open_slot(self, lease_id: int) -> int:
        """Its number; nothing of it is used. Raises LedgerError when there is no room."""
        slot = self._free.pop() if self._free else self._begin_slot()
        cells, base = self.cells, slot * SLOT_CELLS
        cells[base + USED] = 0
        cells[base + LAST] = 0
        cells[base + _LEASE] = lease_id  # last: a slot that has an owner is right
        return slot

    def free_slot(self, slot: int) -> None:
        self.cells[slot * SLOT_CELLS + _LEASE] = 0
        self._free.append(slot)

    def close(self) -> None:
        """Leaves the file, for whoever settles it; may be called again."""
        if self._descriptor < 0:
            return
        for view in (self.cells, self._slots, self._bytes):
            view.release()
        self._mapped.close()
        os.close(self._descriptor)
        self._descriptor = -1

    def _begin_slot(self) -> int:
        if self._begun == self._backed:
            self._back_more()
        self._begun += 1
        return self._begun - 1

    def _back_more(self) -> None:
        if self._backed == MAX_SLOTS:
            raise LedgerError(f"the ledger {self.path} is full: {MAX_SLOTS} leases are open")
        # A page that the disk has no room for would end the process when it is written (SIGBUS).
        offset = _HEADER_BYTES + self._backed * _SLOT_BYTES
        try:
            _set_aside(self._descriptor, offset, _CHUNK_SLOTS * _SLOT_BYTES)
        except OSError as exc:
            raise LedgerError(
                f"the ledger {self.path} can't grow ({exc.strerror}); free some space on its disk"
            ) from exc
        self._backed += _CHUNK_SLOTS


class LockedLedger:
    """A ledger whose owner is gone, held so that nobody else settles it."""

    def __init__(self, path: Path, descriptor: int) -> None:
        """Use `lock_ledger`."""
        self._path = path
        self._descriptor = descriptor

    def read(self) -> LedgerContents:
        return _contents(self._path, self._descriptor)

    def remove(self) -> None:
        """Raises LedgerError."""
        try:
            self._path.unlink(missing_ok=True)
        except OSError as exc:
            raise LedgerError(f"the ledger {self._path} can't be removed: {exc.strerror}") from exc

    def close(self) -> None:
        os.close(self._descriptor)


def ledger_path(folder: Path, holder: str) -> Path:
    return folder / f"{holder}{_SUFFIX}"


def ledger_paths(folder: Path) -> dict[str, Path]:
    """Those in a folder, by holder."""
    return {path.name.removesuffix(_SUFFIX): path for path in folder.glob(f"[!.]*{_SUFFIX}")}


def remove_drafts(folder: Path) -> None:
    """What a process left that ended as it made a ledger; nothing was spent in it."""
    for path in folder.glob(f".*{_SUFFIX}"):
        with contextlib.suppress(OSError):
            path.unlink()


def lock_ledger(path: Path) -> LockedLedger | None:
    """None while its owner lives. Raises LedgerError when it is gone or can't be opened."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as exc:
        raise LedgerError(f"the ledger {path} can't be read: {exc.strerror}") from exc
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError as exc:
        os.close(descriptor)
        raise LedgerError(f"the ledger {path} can't be locked: {exc.strerror}") from exc
    return LockedLedger(path, descriptor)


def read_ledger(path: Path) -> LedgerContents:
    """Raises LedgerError when it is no ledger."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as exc:
        raise LedgerError(f"the ledger {path} can't be read: {exc.strerror}") from exc
    try:
        return _contents(path, descriptor)
    finally:
        os.close(descriptor)


def _contents(path: Path, descriptor: int) -> LedgerContents:
    try:
        found = os.fstat(descriptor)
        data = os.pread(descriptor, _HEADER_BYTES + MAX_SLOTS * _SLOT_BYTES, 0)
    except OSError as exc:
        raise LedgerError(f"the ledger {path} can't be read: {exc.strerror}") from exc
    if len(data) < _HEADER_BYTES or len(data) % _SLOT_BYTES or not data.startswith(_MAGIC):
        raise LedgerError(f"the ledger {path} is damaged: it isn't one of this llm-proxy")
    _, inode, boot, holder = _HEADER.unpack_from(data)
    end = _HEADER_BYTES + -(-len(data.rstrip(b"\0")) // _SLOT_BYTES) * _SLOT_BYTES  # of used slots
    cells = memoryview(data)[_HEADER_BYTES:end].cast("Q")
    return LedgerContents(
        holder=_text(holder),
        is_original=inode == found.st_ino,
        is_of_this_boot=_text(boot) == boot_id(),
        uses={
            cells[base]: LeaseUse(cells[base], cells[base + USED], cells[base + LAST] / 1000)
            for base in range(0, len(cells), SLOT_CELLS)
            if cells[base + _LEASE]
        },
    )


def _text(field: bytes) -> str:
    return field.rstrip(b"\0").decode("utf-8", "replace")


@cache
def boot_id() -> str:
    """Names the time since the machine started."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    # Elsewhere the moment of the start, to ten minutes: clocks are corrected meanwhile. Taking one
    # boot for two counts too much as spent; two boots within ten minutes may pass for one.
    return f"at {round((time.time() - time.monotonic()) / 600)}"


if sys.platform == "linux":

    def _set_aside(descriptor: int, offset: int, length: int) -> None:
        os.posix_fallocate(descriptor, offset, length)

else:

    def _set_aside(descriptor: int, offset: int, length: int) -> None:
        """Where there is no call for it, zeros take the place."""
        written = os.pwrite(descriptor, bytes(length), offset)
        if written < length:
            raise OSError(28, "No space left on device")
