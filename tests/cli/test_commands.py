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


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_imports_no_library_of_its_work(name: str) -> None:
    script = (
        f"import sys; from llm_proxy.cli.main import run; run([{name!r}, '--help'])\n"
        "heavy = {'cryptography', 'httpx', 'hypercorn', 'peewee', 'starlette', 'uvloop', 'yaml'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    process = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert process.stderr == "[]\n"
    assert f"llm-proxy {name}" in process.stdout
