"""The state machines of the tests as targets: hypothesis drives them for as long as it is told."""

from __future__ import annotations

import logging
import sys
import time
from importlib import import_module
from typing import Any, Final

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from fuzz.findings import Findings
from fuzz.reach import Tracer, lines_in, lines_of

# By name: where the machine is, and the modules it is to reach.
MACHINES: Final = {
    "client-connection": (
        "tests.server.gateway.test_client_connection_state_machine",
        "ClientConnectionMachine",
        ("llm_proxy.server.gateway.client_connection", "llm_proxy.server.gateway.exchange"),
    ),
    "upstream-connection": (
        "tests.http1.test_connection_state_machine",
        "ConnectionMachine",
        ("llm_proxy.http1.connection", "llm_proxy.http1.pool"),
    ),
}
BATCH: Final = 40  # runs of a machine between two looks at the clock
STEPS: Final = 80
TRACED: Final = 25  # runs to find out what is reached


def _machine(name: str) -> Any:
    module, machine, _ = MACHINES[name]
    logging.getLogger("llm_proxy").setLevel(logging.CRITICAL)
    return getattr(import_module(module), machine)


def _run_batch(machine: Any, examples: int, *, shrinks: bool) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            phases=[Phase.generate, Phase.shrink] if shrinks else [Phase.generate],
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )


def run(name: str, seconds: int) -> None:
    """Prints its progress as libFuzzer does; an execution is one step of a machine."""
    machine, findings = _machine(name), Findings(name)
    started = time.monotonic()
    while (elapsed := time.monotonic() - started) < seconds:
        try:
            _run_batch(machine, BATCH, shrinks=True)
        except Exception as exc:
            findings.add(b"", exc)
        print(f"#{machine.steps} pulse exec/s: {machine.steps / max(elapsed, 1):.0f}", flush=True)


def reach(name: str) -> dict[str, int]:
    """As `fuzz.corpus.merge`; a machine has no corpus."""
    modules = MACHINES[name][2]
    machine = _machine(name)
    arcs = Tracer(modules).watch(lambda: _run_batch(machine, TRACED, shrinks=False))
    lines = lines_of(modules)
    found = {"lines_reached": len(lines_in(arcs, lines)), "lines": len(lines), "arcs": len(arcs)}
    return {"inputs": 0, "bytes": 0} | found


if __name__ == "__main__":
    run(sys.argv[1], int(sys.argv[2]))
