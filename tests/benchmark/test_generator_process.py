from __future__ import annotations

import subprocess
import sys

from llm_proxy.benchmark import generator_channel as channel

COMMAND = [sys.executable, "-P", "-m", "llm_proxy.benchmark.generator_process", "0", "1"]


def test_it_ends_with_its_stdin() -> None:
    done = subprocess.run(COMMAND, input=b"", capture_output=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_a_plan_it_does_not_understand_is_told_in_a_sentence() -> None:
    with subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(channel.pack(channel.PLAN, b"\x80"))
        process.stdin.flush()
        kind, length = channel.unpack_header(process.stdout.read(channel.HEADER_BYTES))
        assert kind == channel.FAILED
        assert b"targets" in process.stdout.read(length)
        process.stdin.close()
        assert process.wait(30) == 0
