from __future__ import annotations

import getpass
import platform
import socket
from pathlib import Path

import pytest

import llm_proxy
from llm_proxy.benchmark.environment import fingerprint


def test_the_machine_is_described() -> None:
    found = fingerprint()
    assert found.llm_proxy == llm_proxy.__version__
    assert found.python.endswith(platform.python_version())
    assert found.machine == platform.machine()
    assert found.system.startswith(platform.system())
    assert found.cpu
    assert found.cpus >= 1
    assert found.memory_mib > 64
    assert found.event_loop.startswith("uvloop 0.")


def test_nobody_is_named() -> None:
    words = str(fingerprint()).replace("'", " ").split()
    assert socket.gethostname() not in words
    assert getpass.getuser() not in words
    assert not [word for word in words if word.startswith(("/", "~"))]


@pytest.mark.parametrize(
    ("text", "cpu"),
    [
        ("processor\t: 0\nmodel name\t: Fast  CPU (TM)\n\nmodel name\t: Other\n", "Fast CPU (TM)"),
        ("cpu model : Loong 3\n", "Loong 3"),
        (
            "processor : 0\nCPU implementer : 0x41\nCPU part : 0xd0c\n",
            "implementer 0x41, part 0xd0c",
        ),
        ("no colon\n\n", platform.machine()),
        ("\xff: \xfe", platform.machine()),
    ],
)
def test_the_cpu_is_read_as_well_as_the_system_tells(tmp_path: Path, text: str, cpu: str) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text(text, encoding="latin-1")
    assert fingerprint(cpuinfo=path).cpu == cpu


def test_without_cpuinfo_the_machine_says_what_it_is(tmp_path: Path) -> None:
    assert fingerprint(cpuinfo=tmp_path / "none").cpu == platform.machine()
