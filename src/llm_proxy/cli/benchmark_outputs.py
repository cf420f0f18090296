"""The files of a benchmark: opened before it starts, written whatever becomes of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

from llm_proxy.cli.benchmark_options import Given
from llm_proxy.errors import ConfigError, LLMProxyError

if TYPE_CHECKING:
    from llm_proxy.benchmark.csv_samples import CsvSamples
    from llm_proxy.benchmark.hdr_histogram import HdrHistogram
    from llm_proxy.benchmark.report import Report
    from llm_proxy.benchmark.samples import Frame


class Outputs:
    def __init__(self, given: Given) -> None:
        """Raises ConfigError when one can't be written, and leaves none behind then."""
        self._given = given
        self._created: list[Path] = []
        self._failure: str | None = None
        self._csv_file: IO[bytes] | None = None
        self._csv: CsvSamples | None = None
        try:
            for name in ("csv", "html", "hdr", "junit"):
                self._try(f"--{name}", getattr(given, name))
        except ConfigError:
            self.discard()
            raise

    def _try(self, option: str, path: Path | None) -> None:
        if path is None:
            return
        is_new = not path.exists()
        try:
            path.open("ab").close()
        except OSError as exc:
            raise ConfigError(
                f"{option}: {path} can't be written ({exc.strerror}); name another file"
            ) from exc
        if is_new:
            self._created.append(path)

    @property
    def on_frame(self) -> Callable[[Frame, int], None] | None:
        """Takes what --csv writes; None when nobody asked for it."""
        from llm_proxy.benchmark.csv_samples import CsvSamples

        if self._given.csv is None:
            return None
        self._csv_file = self._given.csv.open("wb")
        self._csv = CsvSamples(self._csv_file)
        return self._add

    def _add(self, frame: Frame, run: int) -> None:
        """A disk that is full costs the file, not the run."""
        if self._csv is None:
            return
        try:
            self._csv.add(frame, run)
        except OSError as exc:
            self._fail("--csv", exc)
            self._csv = None

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
        if self._csv_file is not None:
            try:
                self._csv_file.close()
            except OSError as exc:
                self._fail("--csv", exc)
            self._csv_file = None

    def discard(self) -> None:
        """Removes what was created for nothing."""
        self.close()
        for path in self._created:
            with suppress(OSError):
                path.unlink()
        self._created.clear()
