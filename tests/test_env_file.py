from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.env_file import Entry, quoted, read_env_file, with_value
from llm_proxy.errors import ConfigError


def _written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "some.env"
    path.write_text(text)
    return path


def test_entries_carry_the_line_they_begin_on(tmp_path: Path) -> None:
    path = _written(tmp_path, '# first\n\nA=1\n\n\nexport B="two\nlines"\nC = three # why\nD=\n')
    assert read_env_file(path) == [
        Entry(name="A", value="1", line=3),
        Entry(name="B", value="two\nlines", line=6),
        Entry(name="C", value="three", line=8),
        Entry(name="D", value="", line=9),
    ]


def test_nothing_is_substituted_in_values(tmp_path: Path) -> None:
    path = _written(tmp_path, "A=$HOME\nB=${A}\nC=$(whoami)\n")
    assert [entry.value for entry in read_env_file(path)] == ["$HOME", "${A}", "$(whoami)"]


def test_byte_order_mark_and_windows_line_ends_are_understood(tmp_path: Path) -> None:
    path = tmp_path / "dos.env"
    path.write_bytes(b"\xef\xbb\xbfA=1\r\n\r\nB=2\r\n")
    assert [(e.name, e.value, e.line) for e in read_env_file(path)] == [
        ("A", "1", 1),
        ("B", "2", 3),
    ]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("A=1\n\nB\n", ":3: B has no value; write NAME=value"),
        ("A=1\n=5\n", ":2: this line isn't NAME=value"),
        ("A=1\nB=2\nA=3\n", ":3: A was set on line 1 already; keep one"),
        ("A='open\n", ":1: this line isn't NAME=value"),
    ],
)
def test_bad_line_is_named_and_its_value_is_not(tmp_path: Path, text: str, complaint: str) -> None:
    path = _written(tmp_path, text)
    with pytest.raises(ConfigError) as refused:
        read_env_file(path)
    assert str(refused.value) == f"{path}{complaint}"


def test_file_that_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing\.env can't be read: No such file"):
        read_env_file(tmp_path / "missing.env")
    with pytest.raises(ConfigError, match="can't be read: Is a directory"):
        read_env_file(tmp_path)
    binary = tmp_path / "binary.env"
    binary.write_bytes(b"A=\xff\xfe")
    with pytest.raises(ConfigError, match="isn't UTF-8 text"):
        read_env_file(binary)


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1))
def test_quoted_value_reads_back(tmp_path_factory: pytest.TempPathFactory, value: str) -> None:
    path = tmp_path_factory.getbasetemp() / "quoted.env"
    path.write_text(f"A={quoted(value)}\nB=2\n", "utf-8")
    entries = read_env_file(path)
    assert [(entry.name, entry.value) for entry in entries] == [("A", value), ("B", "2")]


def test_plain_values_stay_without_quotes() -> None:
    assert quoted("127.0.0.1:8080") == "127.0.0.1:8080"
    assert quoted("/a b/c") == "'/a b/c'"


def test_one_value_is_altered_and_all_else_stays(tmp_path: Path) -> None:
    path = _written(tmp_path, "# mine\nA=1\nexport B=two # why\n\n  C = three")
    assert with_value(path, "B", "x y") == "# mine\nA=1\nB='x y'\n\n  C = three\n"
    assert with_value(path, "C", "4") == "# mine\nA=1\nexport B=two # why\n\nC=4\n"
