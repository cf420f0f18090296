"""Whether a chain of audit records is as it was written: the first place where it isn't."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

import msgspec

from llm_proxy.audit import AuditRecord, Head, decode_record, encode_record, hash_of, head_of

Kind = Literal["changed", "removed", "reordered", "truncated", "unreadable", "mixed"]


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    kind: Kind
    message: str
    place: str  # a file and line, or a table
    sequence: int | None = None  # of the record that shows it


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """Of one chain, in one place."""

    place: str
    chain: str | None = None  # None: there was no record
    records: int = 0
    first: int = 0  # sequence; the records before were deleted after their time, or rotated away
    last: int = 0
    head_hash: str = ""  # of the last record: keep a copy elsewhere, and nothing can be rewritten
    fault: Fault | None = None

    @property
    def is_sound(self) -> bool:
        return self.fault is None


class ChainCheck:
    """Takes records in the order in which they are kept, and stops at the first fault."""

    def __init__(
        self, place: str, *, before: Head | None = None, kept_hash: str | None = None
    ) -> None:
        """`before` is what the first record must follow, `kept_hash` is that of one among them,
        where these are known."""
        self._place = place
        self._before = before
        self._missed = kept_hash
        self._first: AuditRecord | None = None
        self._last: AuditRecord | None = None
        self._count = 0
        self.fault: Fault | None = None

    def take_line(self, line: bytes, place: str) -> bool:
        """Whether to go on. `line` is without its end."""
        try:
            record = decode_record(line)
        except ValueError as exc:
            return self._fail("unreadable", f"this isn't a record ({exc})", place)
        if encode_record(record) != line:
            return self._fail("changed", "the line isn't as it was written", place, record)
        return self.take(record, place)

    def take(self, record: AuditRecord, place: str) -> bool:
        """Whether to go on."""
        if hash_of(record) != record.hash:
            return self._fail("changed", "the record doesn't have its hash", place, record)
        if self._first is not None and record.chain != self._first.chain:
            return self._fail("mixed", f"it belongs to the chain {record.chain}", place, record)
        before = self._before if self._last is None else head_of(self._last)
        if before is not None and not self._follows(record, before, place):
            return False
        self._first = self._first or record
        self._last = record
        self._count += 1
        if record.hash == self._missed:
            self._missed = None
        return True

    def _follows(self, record: AuditRecord, before: Head, place: str) -> bool:
        if record.sequence > before.sequence + 1:
            missing = record.sequence - before.sequence - 1
            what = f"{missing} record(s) before it are missing"
            return self._fail("removed", what, place, record)
        if record.sequence <= before.sequence:
            what = f"it comes after the record {before.sequence}"
            return self._fail("reordered", what, place, record)
        if record.previous_hash != before.hash:
            what = f"it doesn't follow the record {before.sequence} that is there"
            return self._fail("changed", what, place, record)
        return True

    def verdict(self, head: Head | None = None) -> Verdict:
        """`head` is what the last record must be, where that is known."""
        if self.fault is None and head is not None:
            self._compare(head)
        if self.fault is None and self._missed is not None:
            self._fail("truncated", f"no record has the hash {self._missed}", self._place)
        return Verdict(
            place=self._place,
            chain=None if self._first is None else self._first.chain,
            records=self._count,
            first=0 if self._first is None else self._first.sequence,
            last=0 if self._last is None else self._last.sequence,
            head_hash="" if self._last is None else self._last.hash,
            fault=self.fault,
        )

    def _compare(self, head: Head) -> None:
        last = self._before or Head() if self._last is None else head_of(self._last)
        if last.sequence < head.sequence:
            what = f"it ends with the record {last.sequence}, but {head.sequence} was written"
            self._fail("truncated", what, self._place)
        elif last != head:
            what = f"its last record isn't the one that was written as {head.sequence}"
            self._fail("changed", what, self._place)

    def _fail(
        self, kind: Kind, message: str, place: str, record: AuditRecord | None = None
    ) -> bool:
        sequence = None if record is None else record.sequence
        self.fault = Fault(kind=kind, message=message, place=place, sequence=sequence)
        return False


class OpenFile(NamedTuple):
    file: BinaryIO
    size: int  # what is beyond isn't looked at


def open_file(path: Path) -> OpenFile:
    file = path.open("rb")
    return OpenFile(file, os.fstat(file.fileno()).st_size)


def verify_files(
    paths: Iterable[Path], *, head: Head | None = None, kept_hash: str | None = None
) -> Verdict:
    """Rotated files of one log, in whatever order, as one chain. Raises OSError."""
    files: list[OpenFile] = []
    with ExitStack() as stack:
        for path in paths:
            files.append(open_file(path))
            stack.callback(files[-1].file.close)
        return verify_open_files(files, head=head, kept_hash=kept_hash)


def verify_open_files(
    files: Iterable[OpenFile], *, head: Head | None = None, kept_hash: str | None = None
) -> Verdict:
    """Likewise; closes them."""
    with ExitStack() as stack:
        opened = [OpenFile(stack.enter_context(file), size) for file, size in files]
        return _verify(opened, head, kept_hash)


def _verify(files: Iterable[OpenFile], head: Head | None, kept_hash: str | None) -> Verdict:
    ordered = sorted(files, key=_first_sequence)
    check = ChainCheck(ordered[-1].file.name if ordered else "no file", kept_hash=kept_hash)
    for opened in ordered:
        for number, line in enumerate(_lines(opened), start=1):
            place = f"{opened.file.name}:{number}"
            if not line.endswith(b"\n"):
                check.take_line(b"", f"{place}, which was cut")
            if check.fault is not None or not check.take_line(line.removesuffix(b"\n"), place):
                return check.verdict()
    return check.verdict(head)


def _lines(opened: OpenFile) -> Iterator[bytes]:
    left = opened.size
    opened.file.seek(0)
    while left > 0 and (line := opened.file.readline(left)):
        left -= len(line)
        yield line


def _first_sequence(opened: OpenFile) -> int:
    try:
        return decode_record(opened.file.readline().removesuffix(b"\n")).sequence
    except ValueError:
        return 0  # that file's fault is told first
