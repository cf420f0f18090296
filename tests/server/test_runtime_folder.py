from __future__ import annotations

import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_proxy.server.runtime_folder import (
    CONTROL_SOCKET,
    EVENTS_SOCKET,
    make_runtime_folder,
    remove_runtime_folder,
)
from llm_proxy.server.sockets import bind_unix


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder that leaves room for the path of a socket, as pytest's own may not."""
    with tempfile.TemporaryDirectory(prefix="lp-", dir="/tmp") as folder:
        yield Path(folder)


def test_folder_is_private_and_removed_with_its_sockets(short: Path) -> None:
    folder = make_runtime_folder({"XDG_RUNTIME_DIR": str(short)})
    assert folder.parent == short
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    (folder / CONTROL_SOCKET).touch()
    (folder / EVENTS_SOCKET).touch()
    remove_runtime_folder(folder)
    assert not folder.exists()
    remove_runtime_folder(folder)


def test_long_or_missing_places_are_passed_over(short: Path) -> None:
    long = short / ("x" * 90)
    long.mkdir()
    environ = {"XDG_RUNTIME_DIR": str(long), "TMPDIR": str(short / "missing")}
    folder = make_runtime_folder(environ)
    try:
        assert folder.parent == Path("/tmp")
        bind_unix(folder / CONTROL_SOCKET).close()
    finally:
        remove_runtime_folder(folder)
    assert not folder.exists()


def test_only_folders_of_ours_are_removed(short: Path) -> None:
    other = short / "precious"
    other.mkdir()
    remove_runtime_folder(other)
    assert other.exists()
    ours = make_runtime_folder({"TMPDIR": str(short)})
    link = short / "llm-proxy-link"
    link.symlink_to(ours)
    remove_runtime_folder(link)
    assert ours.exists()


def test_unknown_content_is_kept(short: Path) -> None:
    folder = make_runtime_folder({"TMPDIR": str(short)})
    (folder / "notes").write_text("mine")
    remove_runtime_folder(folder)
    assert (folder / "notes").read_text() == "mine"
