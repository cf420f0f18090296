from __future__ import annotations

import subprocess
import sys

from llm_proxy.server.descriptors import ENOUGH, descriptor_warning

# In a process of its own: a hard limit that was lowered can't be raised again.
SCRIPT = """
import resource, sys
from llm_proxy.server.descriptors import raise_descriptor_limit
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), int(sys.argv[2])))
print(raise_descriptor_limit(), *resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def raised(soft: int, hard: int) -> list[int]:
    command = [sys.executable, "-c", SCRIPT, str(soft), str(hard)]
    found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    return [int(word) for word in found.stdout.split()]


def test_soft_limit_becomes_the_hard_one() -> None:
    assert raised(256, 1024) == [1024, 1024, 1024]


def test_limit_that_is_high_already_stays() -> None:
    assert raised(1024, 1024) == [1024, 1024, 1024]


def test_low_limit_is_warned_of_with_what_to_do() -> None:
    warning = descriptor_warning(1024)
    assert warning is not None
    assert "only 1024 files" in warning
    assert "LimitNOFILE=" in warning
    assert descriptor_warning(ENOUGH) is None
