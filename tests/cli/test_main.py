from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import typer

from llm_proxy import __version__
from llm_proxy.cli.main import app, run
from llm_proxy.errors import LLMProxyError, NotFound

HEAVY = {
    "asyncio",
    "cryptography",
    "dotenv",
    "httptools",
    "httpx",
    "hypercorn",
    "msgspec",
    "peewee",
    "platformdirs",
    "ssl",
    "starlette",
    "uvloop",
    "yaml",
}


@pytest.fixture
def failing() -> Iterator[dict[str, BaseException]]:
    """Commands by name that raise what the test puts in."""
    failures: dict[str, BaseException] = {}
    before = app.registered_commands[:]

    def fail() -> None:
        raise failures["fail"]

    app.command(hidden=True)(fail)
    yield failures
    app.registered_commands[:] = before


def test_version_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"llm-proxy {__version__}\n"


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str], flag: str) -> None:
    assert run([flag]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("server", "manage", "config", "setup", "mock", "db"))


def test_no_command_is_wrong_usage_and_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 2
    assert "Commands" in "".join(capsys.readouterr())


@pytest.mark.parametrize("arguments", [["nonsense"], ["config", "show", "--nonsense"]])
def test_wrong_usage_exits_2_with_a_hint(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert run(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "Usage: llm-proxy" in printed.err
    assert "Error: No such" in printed.err


def test_error_is_one_sentence_and_its_own_exit_code(
    capsys: pytest.CaptureFixture[str], failing: dict[str, BaseException]
) -> None:
    failing["fail"] = NotFound("there is no such thing; make one")
    assert run(["fail"]) == 4
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "Error: there is no such thing; make one\n")


def test_unforeseen_error_says_how_to_learn_more(
    capsys: pytest.CaptureFixture[str], failing: dict[str, BaseException]
) -> None:
    failing["fail"] = ZeroDivisionError("oh")
    assert run(["fail"]) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("Error: ZeroDivisionError: oh")
    assert "--debug" in shown
    assert "Traceback" not in shown


def test_text_that_can_not_be_encoded_is_only_an_argument_s_fault_if_there_is_one(
    capsys: pytest.CaptureFixture[str], failing: dict[str, BaseException]
) -> None:
    failing["fail"] = UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed")
    assert run(["fail"]) == 1
    assert "wasn't foreseen" in capsys.readouterr().err


def test_debug_lets_the_traceback_through(failing: dict[str, BaseException]) -> None:
    failing["fail"] = LLMProxyError("oh")
    with pytest.raises(LLMProxyError):
        run(["--debug", "fail"])


def test_traceback_is_the_plain_one_without_variables(tmp_path: Path) -> None:
    process = subprocess.run(
        [sys.executable, "-m", "llm_proxy", "--debug", "config", "validate", "canary.yaml"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert process.returncode == 1
    assert process.stderr.startswith("Traceback (most recent call last):\n")
    assert "ConfigError: " in process.stderr
    assert "╭" not in process.stderr


@pytest.mark.parametrize("interruption", [KeyboardInterrupt(), typer.Abort()])
def test_interruption_exits_130(
    capsys: pytest.CaptureFixture[str],
    failing: dict[str, BaseException],
    interruption: BaseException,
) -> None:
    failing["fail"] = interruption
    assert run(["fail"]) == 130
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("code", [0, 1, 3])
def test_exit_code_of_a_command_is_kept(failing: dict[str, BaseException], code: int) -> None:
    failing["fail"] = typer.Exit(code)
    assert run(["fail"]) == code


def test_reader_that_left_is_no_failure_worth_words(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    process = subprocess.run(
        [sys.executable, "-m", "llm_proxy", "config", "show"],
        stdout=write_end,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "LLM_PROXY_HOME": str(tmp_path)},
        check=False,
    )
    os.close(write_end)
    assert process.stderr == ""
    assert process.returncode == 1


def test_streams_that_a_launcher_left_closed_lead_nowhere(tmp_path: Path) -> None:
    """Else the next file would become one of them."""
    code = """if True:
        import os, sys
        from llm_proxy.cli import main
        sys.argv[1:] = ["--version"]
        try:
            main()
        except SystemExit:
            print("nowhere", file=sys.stderr)
        nowhere = os.stat(os.devnull).st_rdev
        sys.exit(any(os.fstat(number).st_rdev != nowhere for number in range(3)))
    """
    process = subprocess.run(
        ["sh", "-c", 'exec "$0" -c "$1" <&- >&- 2>&-', sys.executable, code],
        env={**os.environ, "LLM_PROXY_HOME": str(tmp_path)},
        check=False,
    )
    assert process.returncode == 0


def test_ctrl_c_at_a_question_exits_130(
    in_terminal: Callable[[list[str], list[tuple[str, str]]], tuple[int, str]], tmp_path: Path
) -> None:
    code, shown = in_terminal(["setup"], [("OpenAI API key?hidden", "\x03")])
    assert code == 130
    assert "Interrupted." in shown
    assert "Traceback" not in shown
    assert not (tmp_path / "user").exists()


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys; from llm_proxy.cli.main import run; run(['--help'])\n"
        f"print(sorted({HEAVY} & set(sys.modules)), file=sys.stderr)"
    )
    process = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert process.stderr == "[]\n"
