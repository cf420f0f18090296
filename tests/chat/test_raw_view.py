from __future__ import annotations

import io

import pytest

from llm_proxy.chat.raw_view import RawView
from llm_proxy.errors import LLMProxyError


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("pieces", "written"),
    [(["a", "b"], "ab\n"), (["a\n"], "a\n"), ([], ""), (["\x1b[1mx"], "\x1b[1mx\n")],
)
def test_file_gets_what_was_said_and_the_end_of_its_line(pieces: list[str], written: str) -> None:
    file = io.StringIO()
    with RawView(file) as view:
        for piece in pieces:
            view.add(piece)
    assert file.getvalue() == written


def test_terminal_gets_no_sequences() -> None:
    file = _Terminal()
    with RawView(file) as view:
        view.add("\x1b[")
        view.add("31mred\x1b")
    assert file.getvalue() == "red\n"


class _FullDisk(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")


def test_full_disk_is_told() -> None:
    with (
        pytest.raises(LLMProxyError, match="can't be written: No space"),
        RawView(_FullDisk()) as v,
    ):
        v.add("a")


def test_reader_that_has_gone_is_not_written_to_again() -> None:
    file = io.StringIO()
    with pytest.raises(BrokenPipeError), RawView(file) as view:
        view.add("a")
        raise BrokenPipeError
    assert file.getvalue() == "a"
