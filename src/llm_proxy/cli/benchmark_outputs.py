"""The files of a benchmark: opened before it starts, written whatever becomes of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol

from llm_proxy.cli.benchmark_options import Given
from llm_proxy.errors import ConfigError, LLMProxyError

if TYPE_CHECKING:
    from llm_proxy.benchmark.hdr_histogram import HdrHistogram
    from llm_proxy.benchmark.report import Report
    from llm_proxy.benchmark.samples import Frame

FILES = ("csv", "jsonl", "html", "hdr", "junit")  # the options that name one


class _Writer(Protocol):
    """Of requests, as they end."""

    def add(self, frame: Frame, run: int) -> None: ...


class Outputs:
    def __init__(self, given: Given) -> None:
        """Raises ConfigError when one can't be written, and leaves none behind then."""
        self._given = given
        self._created: list[Path] = []
        self._failure: str | None = None
        self._open: dict[str, IO[bytes]] = {}  # by option
        self._writers: dict[str, _Writer] = {}  # … those that could write so far
        try:
            for name in FILES:
                self._try(f"--{name}", getattr(given, name))
        except ConfigError:
            self.discard()
            raise

    def _try(self, option: str, path: Path | None) -> None:
        if path is None:
            return
        try:
            if path.is_fifo():
                return  # who reads it would take the trial for all
            is_new = not path.exists()
            path.open("ab").close()
        except OSError as exc:
            raise ConfigError(
                f"{option}: {path} can't be written ({exc.strerror}); name another file"
            ) from exc
        if is_new:
            self._created.append(path)

    def begin(self) -> Callable[[Frame, int], None] | None:
        """What takes the requests for --csv and --jsonl; None when nobody asked for them."""
        from llm_proxy.benchmark.csv_samples import CsvSamples
        from llm_proxy.benchmark.jsonl_samples import JsonlSamples

        writers = (
            ("--csv", self._given.csv, CsvSamples),
            ("--jsonl", self._given.jsonl, JsonlSamples),
        )
        for option, path, writer in writers:
            if path is not None:
                self._open[option] = path.open("wb")
                self._writers[option] = writer(self._open[option])
        return self._add if self._writers else None

    def _add(self, frame: Frame, run: int) -> None:
        """A disk that is full costs the file, not the run."""
        for option, writer in list(self._writers.items()):
            try:
                writer.add(frame, run)
            except OSError as exc:
                self._fail(option, exc)
                del self._writers[option]

    def write(self, report: Report, histograms: Mapping[str, HdrHistogram]) -> None:
        """All that can be written; `check` tells of the others."""
        from llm_proxy.benchmark.hdr_log import hdr_log
        from llm_proxy.benchmark.html_report import html
        from llm_proxy.benchmark.junit_report import junit

        self._created.clear()
        self._write("--html", self._given.html, lambda: html(report))
        self._write("--hdr", self._given.hdr, lambda: hdr_log(histograms, report))
        self._write("--junit", self._given.junit, lambda: junit(report))
        self.close()

    def check(self) -> None:
        """Raises LLMProxyError when a file couldn't be written."""
        if self._failure is not None:
            raise LLMProxyError(self._failure)

    def _write(self, option: str, path: Path | None, render: Callable[[], bytes]) -> None:
        if path is None:
            return
        try:
            path.write_bytes(render())
        except OSError as exc:
            self._fail(option, exc)

    def _fail(self, option: str, exc: OSError) -> None:
        self._failure = f"the file of {option} couldn't be written: {exc.strerror}"

    def close(self) -> None:
        for option, file in self._open.items():
            try:
                file.close()
            except OSError as exc:
                self._fail(option, exc)
        self._open.clear()

    def discard(self) -> None:
        """Removes what was created for nothing."""
        self.close()
        for path in self._created:
            with suppress(OSError):
                path.unlink()
        self._created.clear()
