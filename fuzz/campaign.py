"""Runs targets side by side, each in a process of its own, and sums up what they found."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from fuzz.findings import MARK
from fuzz.machines import MACHINES
from fuzz.target import FINDINGS, ROOT

GRACE_S: Final = 900  # on top of its time: hypothesis shrinks what it found for minutes
_PROGRESS: Final = re.compile(r"#(\d+)\s")
_EDGES: Final = re.compile(r"cov: (\d+)")
_DONE: Final = re.compile(r"Done (\d+) runs")


@dataclass(slots=True, kw_only=True)
class Result:
    name: str
    executions: int = 0
    edges: int = 0  # as libFuzzer counts them, of all that is instrumented
    seconds: float = 0.0
    findings: list[str] = field(default_factory=list)
    reach: dict[str, int] = field(default_factory=dict)
    has_ended: bool = False

    def take(self, line: str) -> None:
        """A line that the target's process printed."""
        if line.startswith(MARK):
            self.findings.append(line.removeprefix(MARK).strip())
        for pattern in (_PROGRESS, _DONE):
            if found := pattern.match(line):
                self.executions = max(self.executions, int(found[1]))
        if found := _EDGES.search(line):
            self.edges = int(found[1])


class Campaign:
    def __init__(self, names: list[str], *, seconds: int, jobs: int) -> None:
        """`seconds` are for each target."""
        self.results = [Result(name=name) for name in names]
        self._seconds = seconds
        self._jobs = jobs
        self._processes: set[subprocess.Popen[str]] = set()
        self._is_stopped = False

    def run(self, show: Callable[[list[Result]], None]) -> None:
        """Calls `show` every second. Interrupted, it sums up what there is."""
        with TemporaryDirectory(prefix="fuzz-") as folder, ThreadPoolExecutor(self._jobs) as pool:
            running = [pool.submit(self._run_one, result, folder) for result in self.results]
            try:
                while not all(future.done() for future in running):
                    time.sleep(1)
                    show(self.results)
            except KeyboardInterrupt:
                self._is_stopped = True
                for process in tuple(self._processes):
                    process.terminate()
            for future in running:
                future.result()

    def _run_one(self, result: Result, folder: str) -> None:
        inputs = Path(folder) / result.name
        inputs.mkdir()
        if not self._is_stopped:
            started = time.monotonic()
            self._fuzz(result, inputs)
            result.seconds = time.monotonic() - started
        result.reach = _reach(result.name, inputs)
        result.has_ended = True

    def _fuzz(self, result: Result, inputs: Path) -> None:
        last = ""
        with self._process(result.name, inputs) as process:
            assert process.stdout is not None
            for line in process.stdout:
                result.take(line)
                last = line.strip() or last
        if process.returncode and not self._is_stopped:
            where = FINDINGS.relative_to(ROOT) / result.name
            result.findings.append(f"the process ended with {process.returncode}: {last} ({where})")

    def _process(self, name: str, inputs: Path) -> _Watched:
        if name in MACHINES:
            arguments = ["fuzz.machines", name, str(self._seconds)]
        else:
            arguments = ["fuzz.engine", name, str(inputs), str(self._seconds)]
        return _Watched(arguments, self._seconds + GRACE_S, self._processes)


class _Watched:
    """A process of ours that is killed when it takes far too long."""

    def __init__(
        self, arguments: list[str], limit_s: float, processes: set[subprocess.Popen[str]]
    ) -> None:
        self._arguments = arguments
        self._limit_s = limit_s
        self._processes = processes

    def __enter__(self) -> subprocess.Popen[str]:
        self._process = subprocess.Popen(
            [sys.executable, "-m", *self._arguments],
            cwd=ROOT,
            env=os.environ | {"PYTHONHASHSEED": "0"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        self._processes.add(self._process)
        self._timer = threading.Timer(self._limit_s, self._process.kill)
        self._timer.start()
        return self._process

    def __exit__(self, *exc: object) -> None:
        self._process.wait()
        self._timer.cancel()
        self._processes.discard(self._process)


def _reach(name: str, inputs: Path) -> dict[str, int]:
    """What the corpus reaches, after the new inputs were merged into it."""
    command = [sys.executable, "-m", "fuzz.corpus", name, str(inputs)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1800)
    if done.returncode:
        return {}
    found: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return found


def table(results: list[Result]) -> Iterator[str]:
    yield f"{'target':20} {'executions':>12} {'edges':>6} {'lines':>12} {'corpus':>14} {'found':>6}"
    for result in results:
        reach = result.reach
        lines = f"{reach['lines_reached']}/{reach['lines']}" if reach else "?"
        corpus = f"{reach['inputs']} in {reach['bytes']} B" if reach.get("inputs") else "-"
        edges = str(result.edges) if result.edges else "-"
        yield (
            f"{result.name:20} {result.executions:>12,} {edges:>6} {lines:>12} {corpus:>14} "
            f"{len(result.findings):>6}"
        )


def summary(results: list[Result], *, seconds: int) -> dict[str, object]:
    return {
        "seconds_per_target": seconds,
        "target_seconds": round(sum(result.seconds for result in results)),
        "executions": sum(result.executions for result in results),
        "findings": sum(len(result.findings) for result in results),
        "targets": [
            {
                "name": result.name,
                "executions": result.executions,
                "seconds": round(result.seconds),
                "edges": result.edges,
                **result.reach,
                "findings": result.findings,
            }
            for result in results
        ],
    }
