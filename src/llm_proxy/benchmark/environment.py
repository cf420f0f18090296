"""Where a benchmark ran: enough to tell whether two reports can be compared, and nobody's name."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Final

import llm_proxy
from llm_proxy.benchmark.report import Environment

_CPUINFO: Final = Path("/proc/cpuinfo")
_MIB: Final = 1024 * 1024
# One block of /proc/cpuinfo is far shorter; machines with hundreds of CPUs have as many blocks.
_CPUINFO_READ: Final = 8 * 1024


def fingerprint(*, cpuinfo: Path = _CPUINFO) -> Environment:
    # Not platform.uname(): that runs another program to name the processor.
    system = os.uname()
    return Environment(
        llm_proxy=llm_proxy.__version__,
        python=f"{platform.python_implementation()} {platform.python_version()}",
        system=f"{system.sysname} {system.release}",
        machine=system.machine,
        cpu=_cpu(cpuinfo) or system.machine,
        cpus=_usable_cpus(),
        memory_mib=_memory_mib(),
        load_average=_load_average(),
        event_loop=_event_loop(),
    )


def _cpu(cpuinfo: Path) -> str | None:
    """The model; ARM's Linux knows numbers only."""
    try:
        with cpuinfo.open(errors="replace") as file:
            text = file.read(_CPUINFO_READ)
    except OSError:
        return None
    fields: dict[str, str] = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip().lower(), " ".join(value.split()))
    if model := fields.get("model name") or fields.get("cpu model"):
        return model
    numbers = [fields.get("cpu implementer"), fields.get("cpu part")]
    return f"implementer {numbers[0]}, part {numbers[1]}" if all(numbers) else None


def _usable_cpus() -> int:
    """Those this process may use, where the system tells."""
    known = hasattr(os, "sched_getaffinity")
    return len(os.sched_getaffinity(0)) if known else os.cpu_count() or 1


def _memory_mib() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // _MIB


def _load_average() -> tuple[float, float, float] | None:
    try:
        one, five, fifteen = os.getloadavg()
    except OSError:
        return None
    return round(one, 2), round(five, 2), round(fifteen, 2)


def _event_loop() -> str:
    return f"uvloop {version('uvloop')}"
