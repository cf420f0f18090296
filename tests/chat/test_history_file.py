from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from llm_proxy.chat.history_file import KEPT, HistoryFile
from llm_proxy.errors import ConfigError


def test_entries_are_kept_in_order_for_their_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "history"
    history = HistoryFile(path)
    assert history.load() == []
    for entry in ("one", "two\nlines", "ü"):
        history.add(entry)
    assert HistoryFile(path).load() == ["one", "two\nlines", "ü"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("entry", ["", "  ", "x" * 20_001])
def test_what_nobody_types_again_is_not_kept(tmp_path: Path, entry: str) -> None:
    HistoryFile(tmp_path / "history").add(entry)
    assert not (tmp_path / "history").exists()


def test_file_stays_bounded(tmp_path: Path) -> None:
    path = tmp_path / "history"
    path.write_text("".join(f'"{n}"\n' for n in range(2 * KEPT)))
    history = HistoryFile(path)
    assert history.load() == [str(n) for n in range(KEPT, 2 * KEPT)]
    history.add("last")
    assert len(path.read_text().splitlines()) == KEPT
    assert HistoryFile(path).load()[-1] == "last"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_file_that_cannot_be_cut_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "history"
    history = HistoryFile(path)
    path.write_text('"x"\n' * 2 * KEPT)
    history.load()

    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    history.add("last")
    assert path.read_text().endswith('"last"\n')


def test_strange_lines_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "history"
    path.write_bytes(b'"a"\n{}\n\xff\n"half')
    assert HistoryFile(path).load() == ["a"]


def test_file_that_cannot_be_read_says_how_to_do_without(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--no-history"):
        HistoryFile(tmp_path).load()


def test_file_that_cannot_be_written_ends_nothing(tmp_path: Path) -> None:
    HistoryFile(tmp_path).add("x")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    HistoryFile(tmp_path / "link").add("x")
    assert not (tmp_path / "elsewhere").exists()
