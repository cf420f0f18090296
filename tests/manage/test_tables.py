from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone

import pytest

from llm_proxy.manage.tables import print_details, print_table

ID = "0d8524c1-fc46-4a9b-b414-dc27d589d414"


def test_a_pipe_gets_aligned_text(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("Id", "Name", "Active"), [(ID, "a", True), ("short", "a longer name", False)])
    assert capsys.readouterr().out.splitlines() == [
        f"{'ID':36}  NAME           ACTIVE",
        f"{ID}  a              yes",
        f"{'short':36}  a longer name  no",
    ]


def test_an_empty_table_is_its_head(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("Id", "Name"), [])
    assert capsys.readouterr().out == "ID  NAME\n"


def test_wide_characters_keep_the_columns_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("Name", "State"), [("日本", "x"), ("abcd", "y")])
    assert capsys.readouterr().out.splitlines() == ["NAME  STATE", "日本  x", "abcd  y"]


def test_details_are_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    at = datetime(2030, 1, 2, 3, 4, tzinfo=timezone(timedelta(hours=1)))
    print_details([("Id", 5), ("Created", at), ("Last used", None), ("Name", "")])
    assert capsys.readouterr().out.splitlines() == [
        "Id:         5",
        "Created:    2030-01-02 02:04Z",
        "Last used:  -",
        "Name:       -",
    ]


def test_what_a_server_sent_cannot_drive_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("Name",), [("a\x1b[2J\r\nb",)])
    assert capsys.readouterr().out.splitlines()[1] == "a�[2J��b"


SCRIPT = """
from llm_proxy.manage.tables import print_table
name = "[bold]a very long name " * 3
row = ("0d8524c1-fc46-4a9b-b414-dc27d589d414", name, "active", "3/100", "6d")
print_table(("Id", "Name", "State", "Used", "Expires"), [row])
"""


def on_a_terminal(**environ: str) -> str:
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb", buffering=0) as output:
        environ = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "80", **environ}
        subprocess.run([sys.executable, "-c", SCRIPT], stdout=theirs, env=environ, check=True)
        os.close(theirs)
        return output.read(65536).decode()


def test_a_terminal_gets_a_table_that_fits_80_columns() -> None:
    shown = on_a_terminal()
    assert "\x1b[" in shown
    lines = re.sub(r"\x1b\[[0-9;]*m", "", shown).splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert lines[1].startswith(ID)
    assert "[bold]" in lines[1]
    assert lines[1].split()[-3:] == ["active", "3/100", "6d"]
    assert "…" in lines[1]


def test_no_color_is_honoured() -> None:
    shown = on_a_terminal(NO_COLOR="1")
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", shown)


def test_times_are_told_in_utc(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("At",), [(datetime(2030, 1, 1, tzinfo=UTC),)])
    assert capsys.readouterr().out.splitlines()[1] == "2030-01-01 00:00Z"
