from __future__ import annotations

import stat
from pathlib import Path

from llm_proxy.server.runtime_folder import (
    CONTROL_SOCKET,
    EVENTS_SOCKET,
    make_runtime_folder,
    remove_runtime_folder,
)
from llm_proxy.server.sockets import bind_unix


def test_folder_is_private_and_removed_with_its_sockets(tmp_path: Path) -> None:
    folder = make_runtime_folder({"XDG_RUNTIME_DIR": str(tmp_path)})
    assert folder.parent == tmp_path
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    (folder / CONTROL_SOCKET).touch()
    (folder / EVENTS_SOCKET).touch()
    remove_runtime_folder(folder)
    assert not folder.exists()
    remove_runtime_folder(folder)


def test_long_or_missing_places_are_passed_over(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 90)
    long.mkdir()
    environ = {"XDG_RUNTIME_DIR": str(long), "TMPDIR": str(tmp_path / "missing")}
    folder = make_runtime_folder(environ)
    try:
        assert folder.parent == Path("/tmp")
        bind_unix(folder / CONTROL_SOCKET).close()
    finally:
        remove_runtime_folder(folder)
    assert not folder.exists()


def test_only_folders_of_ours_are_removed(tmp_path: Path) -> None:
    other = tmp_path / "precious"
    other.mkdir()
    remove_runtime_folder(other)
    assert other.exists()
    ours = make_runtime_folder({"TMPDIR": str(tmp_path)})
    link = tmp_path / "llm-proxy-link"
    link.symlink_to(ours)
    remove_runtime_folder(link)
    assert ours.exists()


def test_unknown_content_is_kept(tmp_path: Path) -> None:
    folder = make_runtime_folder({"TMPDIR": str(tmp_path)})
    (folder / "notes").write_text("mine")
    remove_runtime_folder(folder)
    assert (folder / "notes").read_text() == "mine"
