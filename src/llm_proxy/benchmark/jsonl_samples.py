"""`--jsonl`: an object for each request, written as the frames come."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO

from llm_proxy.benchmark.sample_columns import COLUMNS, Column
from llm_proxy.benchmark.samples import Frame


class JsonlSamples:
    """The columns of `--csv`, without what wasn't measured; the file stays the caller's to close.

    Neither names nor texts have anything in them that JSON would escape.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def add(self, frame: Frame, run: int) -> None:
        if len(frame.samples):
            columns = (_members(column, frame, run) for column in COLUMNS)
            self._file.write("".join(_lines(zip(*columns, strict=True))).encode())


def _members(column: Column, frame: Frame, run: int) -> list[str]:
    quote = '"' if column.is_text else ""
    before = f'"{column.name}":{quote}'
    return [f"{before}{value}{quote}" if value else "" for value in column.values(frame, run)]


def _lines(rows: Iterator[tuple[str, ...]]) -> Iterator[str]:
    for members in rows:
        yield f"{{{','.join(filter(None, members))}}}\n"
