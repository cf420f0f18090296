from __future__ import annotations

import subprocess
import sys

import pytest

from llm_proxy.cli.parent_death import ending_with_parent

PARENT = """
import subprocess, sys, time
from llm_proxy.cli.parent_death import ending_with_parent
child = subprocess.Popen(
    [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"],
    preexec_fn=ending_with_parent(), start_new_session=True,
)
time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can")
def test_a_child_ends_when_its_parent_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"up\n"
        parent.kill()
        assert parent.stdout.read() == b""  # the child held it open, too


@pytest.mark.skipif(sys.platform == "linux", reason="Linux can")
def test_elsewhere_nothing_is_asked_for() -> None:
    assert ending_with_parent() is None
