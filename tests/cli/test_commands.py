from __future__ import annotations

import subprocess
import sys

import pytest

from llm_proxy.cli.commands import COMMANDS, load_command


@pytest.mark.parametrize("name", COMMANDS)
def test_line_in_the_help_begins_what_the_command_says_of_itself(name: str) -> None:
    command = load_command(name)
    line = COMMANDS[name][1].removesuffix(".")
    assert command.name == name
    assert (command.help or "").startswith(line)


def test_help_of_no_command_imports_a_library_of_its_work() -> None:
    heavy = {"cryptography", "httpx", "hypercorn", "peewee", "starlette", "uvloop", "yaml"}
    script = (
        "import sys; from llm_proxy.cli.main import run\n"
        f"for name in {list(COMMANDS)}: run([name, '--help'])\n"
        f"print(sorted({heavy} & set(sys.modules)), file=sys.stderr)"
    )
    process = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert process.stderr == "[]\n"
    assert all(f"llm-proxy {name}" in process.stdout for name in COMMANDS)
