"""Runs of `llm-proxy benchmark` as a user makes them, and programs to point it at."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

KEPT = ("PATH", "HOME", "LANG", "TMPDIR", "PYTHONPATH")
PROGRAM = str(Path(sys.executable).with_name("llm-proxy"))
LONGEST_RUN_S = 600.0
ANY_KEY = "sk-any"  # a mock asks for one, and takes any
WITH_A_REPORT = (0, 1)  # 1: a limit was missed, which is for the caller to judge
BARE = urllib.request.build_opener(urllib.request.ProxyHandler({}))

Report = dict[str, Any]


def run_benchmark(*arguments: object, token: str = ANY_KEY, before: Sequence[str] = ()) -> Report:
    """The report of one run; `before` comes in front of the command, such as taskset."""
    with tempfile.TemporaryDirectory(prefix="llmp-") as home:
        command = [*before, PROGRAM, "benchmark", "--json", "--yes", *map(str, arguments)]
        environ = kept_environ(home) | {"PROXY_TOKEN": token, "DIRECT_KEY": ANY_KEY}
        done = subprocess.run(
            command, env=environ, capture_output=True, text=True, timeout=LONGEST_RUN_S
        )
    if done.returncode not in WITH_A_REPORT or not done.stdout.startswith("{"):
        sys.exit(f"`{' '.join(command)}` ended with {done.returncode}:\n{done.stderr[-2000:]}")
    report: Report = json.loads(done.stdout)
    return report


def direct_to(url: str) -> tuple[str, ...]:
    """The options of a run that is paired with this baseline."""
    return ("--direct-url", url, "--direct-key-env", "DIRECT_KEY")


def run_with_samples(*arguments: object) -> tuple[Report, list[dict[str, str]]]:
    """The report, and a row for each request."""
    with tempfile.TemporaryDirectory(prefix="llmp-") as folder:
        path = Path(folder) / "samples.csv"
        report = run_benchmark(*arguments, "--csv", path)
        with path.open(newline="") as file:
            return report, list(csv.DictReader(file))


@contextlib.contextmanager
def program(*command: object) -> Iterator[Report]:
    """Runs until the end of the block; gives the line of JSON that it prints when it is ready."""
    with tempfile.TemporaryDirectory(prefix="llmp-") as home:
        process = subprocess.Popen(
            [str(word) for word in command],
            env=kept_environ(home),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            if not line:
                sys.exit(f"{command} did not start")
            yield json.loads(line) | {"pid": process.pid}
        finally:
            process.terminate()
            process.wait(10)
            process.stdout.close()


@contextlib.contextmanager
def mock(*options: object) -> Iterator[str]:
    """The URL of a built-in mock."""
    with program(PROGRAM, "mock", "--addr", "127.0.0.1:0", "--json", *options) as ready:
        yield f"http://{ready['address']}"


@contextlib.contextmanager
def truth(script: str, *arguments: object) -> Iterator[list[str]]:
    """The URLs of a script beside this one."""
    path = Path(__file__).with_name(f"truth_{script}.py")
    with program(sys.executable, path, *arguments) as ready:
        yield [f"http://127.0.0.1:{port}" for port in ready["ports"]]


def read_log(url: str) -> list[Report]:
    """What an upstream of known behaviour says that it did, an object a request."""
    with BARE.open(f"{url}/truth", timeout=10) as answer:
        log: list[Report] = json.loads(answer.read())
        return log


def kept_environ(home: str) -> dict[str, str]:
    """Of somebody who has set nothing."""
    kept = {name: value for name, value in os.environ.items() if name in KEPT}
    return kept | {"LLM_PROXY_HOME": home}
