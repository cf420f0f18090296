"""Env files: whatever is in them, ConfigError says it; a quoted value reads back the same."""

from __future__ import annotations

import tempfile
from pathlib import Path

from fuzz.target import Target, must
from llm_proxy.env_file import Entry, quoted, read_env_file
from llm_proxy.errors import ConfigError

_FOLDER = tempfile.TemporaryDirectory(prefix="fuzz-env-file-")
_FILE = Path(_FOLDER.name) / "env"


def run(data: bytes) -> None:
    entries = _read(data)
    for entry in entries or ():
        must(0 < entry.line <= data.count(b"\n") + data.count(b"\r") + 1, "a line beyond the end")
    value = "".join(
        char for char in data.decode("utf-8", "replace") if char.isprintable() or char == "\t"
    )
    again = _read(f"A={quoted(value)}\n".encode())
    must(again is not None and [one.value for one in again] == [value], "quoting alters a value")


def _read(data: bytes) -> list[Entry] | None:
    _FILE.write_bytes(data)
    try:
        return read_env_file(_FILE)
    except ConfigError as exc:
        must(str(_FILE) in str(exc), f"an error without the file's name: {exc}")
        return None


TARGET = Target(
    covers=("llm_proxy.env_file",),
    run=run,
    words=(b"=", b"'", b'"', b"\\", b"\n", b"#", b"export ", b"A=b\n", b" ", b"\r\n", b"${A}"),
    max_bytes=300,
    seeds=(
        b"A=b\nC='d e'\n# f\nexport G=\"h\\n\"\n",
        b"A = b # c\r\nD=\n",
        b"\xef\xbb\xbfA='it\\'s'\n",
        b"A\n",
        b"=b\n'x",
    ),
)
