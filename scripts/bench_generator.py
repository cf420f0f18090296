"""The load generator beside wrk, each on one core, against the same nginx on another."""

from __future__ import annotations

import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench_measurements import Amount
from bench_runs import ANY_KEY, run_benchmark
from bench_sides import free_port, nginx

Figures = dict[str, Any]
GENERATOR_CORE, SERVER_CORE = "0", "1"
MANY = 64
UNITS = {"us": 1.0, "ms": 1e3, "s": 1e6, "m": 6e7}
ANSWER = (
    '{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,'
    '"message":{"role":"assistant","content":"Hello."},"finish_reason":"stop"}],'
    '"usage":{"prompt_tokens":9,"completion_tokens":2,"total_tokens":11}}'
)
BODY = '{"model":"m","messages":[{"role":"user","content":"Say hello to the nginx behind this."}]}'
RETURNING = """\
server {{ listen {address} backlog=4096; default_type application/json;
    location / {{ return 200 '{answer}'; }} }}
"""


def measure_generators(amount: Amount) -> list[Figures]:
    """A row for each: in turns, the medians of the rounds."""
    check_tools()
    address = f"127.0.0.1:{free_port()}"
    http = RETURNING.format(address=address, answer=ANSWER)
    generators = {"wrk": run_wrk, "llm-proxy benchmark": run_ours}
    rounds: dict[str, list[Figures]] = {name: [] for name in generators}
    with nginx(http, address, before=("taskset", "-c", SERVER_CORE)):
        for number in range(amount.rounds):
            print(f"  round {number + 1} of {amount.rounds}", file=sys.stderr)
            for name, run in generators.items():
                rounds[name].append(_measure(run, f"http://{address}", amount.seconds))
    return [{"name": name} | _medians(rows) for name, rows in rounds.items()]


def check_tools() -> None:
    for tool in ("nginx", "wrk", "taskset"):
        if shutil.which(tool) is None:
            sys.exit(f"{tool} is not on PATH (Debian packages: nginx-light, wrk, util-linux)")
    if (os.cpu_count() or 1) < 2:
        sys.exit("two cores are needed: one for the generator and one for nginx")


def _measure(run: Callable[[str, int, float], Figures], url: str, seconds: float) -> Figures:
    many, one = run(url, MANY, seconds), run(url, 1, seconds)
    return {"rps": many["rps"], "p50_us": one["p50_us"], "p99_us": one["p99_us"]} | {
        "rig": many.get("rig"),
        "errors": many["errors"] + one["errors"],
    }


def run_wrk(url: str, connections: int, seconds: float) -> Figures:
    with tempfile.TemporaryDirectory(prefix="llmp-") as folder:
        script = Path(folder) / "post.lua"
        script.write_text(
            'wrk.method="POST"\nwrk.headers["Content-Type"]="application/json"\n'
            f'wrk.headers["Authorization"]="Bearer {ANY_KEY}"\nwrk.body=[[{BODY}]]\n'
        )
        command = ["taskset", "-c", GENERATOR_CORE, "wrk", "-t1", f"-c{connections}"]
        command += [f"-d{max(round(seconds), 1)}s", "--latency", "-s", str(script)]
        command.append(f"{url}/v1/chat/completions")
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    latency = {
        f"p{share}_us": float(value) * UNITS[unit]
        for share, value, unit in re.findall(r"(50|99)%\s+([\d.]+)(us|ms|s|m)\b", said)
    }
    rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
    assert rate is not None, said
    errors = int(bool(re.search(r"Non-2xx|Socket errors", said)))
    return {"rps": float(rate[1]), "errors": errors, **latency}


def run_ours(url: str, connections: int, seconds: float) -> Figures:
    load = ("--base-url", url, "--data", BODY, "-c", connections, "--duration", f"{seconds:g}s")
    report = run_benchmark(*load, before=("taskset", "-c", GENERATOR_CORE))
    return {
        "rps": report["requests_per_second"],
        "p50_us": report["latency_ms"]["p50"] * 1000,
        "p99_us": report["latency_ms"]["p99"] * 1000,
        "errors": report["errors"],
        "rig": report["rig"],
    }


def _medians(rounds: list[Figures]) -> Figures:
    names = ("rps", "p50_us", "p99_us", "errors")
    return {name: statistics.median(one[name] for one in rounds) for name in names} | {
        "rounds": rounds
    }
