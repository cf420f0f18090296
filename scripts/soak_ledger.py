"""What the soak asked for against what the event log says: one record each, and a true one."""

from __future__ import annotations

import enum
import os
from collections import Counter
from pathlib import Path
from typing import BinaryIO

import msgspec

COUNT, TRUNCATED = 127, 128  # of the byte kept for each request: how many records, and a flag


class Expected(enum.IntEnum):
    NONE = 0  # the gateway never saw a whole head
    PERHAPS = 1  # it may have, before the hang-up reached it
    ONE = 2
    WHOLE = 3  # one, of an answer that came to its end
    CUT = 4  # one, of an answer that didn't


class Line(msgspec.Struct):
    request_id: str
    status_code: int | None
    truncated: bool
    dropped: int = 0


class Ledger:
    """Requests are known by number, three bytes each, so that hours fit in memory."""

    def __init__(self, path: Path) -> None:
        self._log = _Followed(path)
        self._expected = bytearray()
        self._records = bytearray()
        self._makers = bytearray()
        self._names: list[str] = []  # of those who made them
        self._given_ids: dict[str, int] = {}  # by the gateway, to what had no id it could read
        self._dropped = self._probes = 0
        self.records = 0

    def new_id(self, maker: str) -> str:
        if maker not in self._names:
            self._names.append(maker)
        self._makers.append(self._names.index(maker))
        self._expected.append(Expected.NONE)
        self._records.append(0)
        return f"soak-{len(self._expected) - 1}"

    def expect(self, request_id: str, expected: Expected) -> None:
        self._expected[_number(request_id)] = expected

    def expect_given(self, request_id: str) -> None:
        """An id that the gateway made, told in its answer."""
        self._given_ids[request_id] = self._given_ids.get(request_id, 0) - 1

    @property
    def requests(self) -> int:
        return len(self._expected)

    def read(self) -> None:
        """What the log has got since the last time."""
        for raw in self._log.new_lines():
            line = msgspec.json.decode(raw, type=Line)
            self.records += 1
            self._dropped += line.dropped
            if line.request_id.startswith("soak-"):
                self._take(line)
            elif line.request_id.startswith("probe-"):
                self._probes += 1
            else:
                self._given_ids[line.request_id] = self._given_ids.get(line.request_id, 0) + 1

    def _take(self, line: Line) -> None:
        number = _number(line.request_id)
        count = min((self._records[number] & COUNT) + 1, COUNT)
        was_cut = self._records[number] & TRUNCATED
        self._records[number] = count | was_cut | (TRUNCATED if line.truncated else 0)

    @property
    def unfinished(self) -> int:
        """Exchanges that must have a record and have none (yet)."""
        return sum(
            expected >= Expected.ONE and not records & COUNT
            for expected, records in zip(self._expected, self._records, strict=True)
        ) + sum(-count for count in self._given_ids.values() if count < 0)

    def settle(self, probes: int) -> Counter[str]:
        """What doesn't agree when nothing more will come; `probes` were made beside the traffic."""
        wrong = Counter(
            {
                "records dropped": self._dropped,
                "probes with not one record": abs(probes - self._probes),
            }
        )
        for maker, expected, records in zip(
            self._makers, self._expected, self._records, strict=True
        ):
            if what := _disagreement(expected, records & COUNT, bool(records & TRUNCATED)):
                wrong[f"{what} ({self._names[maker]})"] += 1
        for count in self._given_ids.values():
            if count:
                what = "records nobody knows of" if count > 0 else "refusals without a record"
                wrong[what] += abs(count)
        return +wrong


def _disagreement(expected: int, count: int, is_cut: bool) -> str:
    if count > 1:
        return "requests with several records"
    if expected == Expected.NONE and count:
        return "records of requests that had no whole head"
    if expected >= Expected.ONE and not count:
        return "exchanges without a record"
    if expected == Expected.WHOLE and is_cut:
        return "whole answers recorded as truncated"
    if expected == Expected.CUT and not is_cut:
        return "cut answers recorded as whole"
    return ""


def _number(request_id: str) -> int:
    return int(request_id.removeprefix("soak-"))


class _Followed:
    """A file that is rotated by renaming it, never more than once between two looks."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._rest = b""

    def new_lines(self) -> list[bytes]:
        if self._file is None:
            if not self._path.exists():
                return []
            self._file = self._path.open("rb")
        text = self._rest + self._file.read()
        if self._path.exists() and not os.path.samestat(
            self._path.stat(), os.fstat(self._file.fileno())
        ):
            text += self._file.read()  # what came before the renaming
            self._file.close()
            self._file = self._path.open("rb")
            text += self._file.read()
        *lines, self._rest = text.split(b"\n")
        return lines
