"""`--csv`: a line for each request, written as the frames come."""

from __future__ import annotations

from typing import IO

from llm_proxy.benchmark.sample_columns import COLUMNS
from llm_proxy.benchmark.samples import Frame


class CsvSamples:
    """Writes the head at once; the file stays the caller's to close."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._write([",".join(column.name for column in COLUMNS)])

    def add(self, frame: Frame, run: int) -> None:
        if len(frame.samples):
            columns = (column.values(frame, run) for column in COLUMNS)
            self._write([",".join(fields) for fields in zip(*columns, strict=True)])

    def _write(self, lines: list[str]) -> None:
        self._file.write(("\r\n".join(lines) + "\r\n").encode())  # RFC 4180
