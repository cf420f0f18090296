from __future__ import annotations

import shutil
import stat
import uuid
from pathlib import Path

import pytest

from llm_proxy.errors import ConfigError
from llm_proxy.home import Home
from llm_proxy.server.host_identity import host_identity


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.ensure()
    return home


def test_a_home_keeps_its_name(home: Home) -> None:
    name = host_identity(home)
    assert str(uuid.UUID(name)) == name
    assert host_identity(home) == name
    (file,) = home.path.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_home_that_is_moved_keeps_its_name(home: Home, tmp_path: Path) -> None:
    name = host_identity(home)
    assert host_identity(Home(home.path.rename(tmp_path / "elsewhere"))) == name


def test_a_copy_of_a_home_is_another_host(home: Home, tmp_path: Path) -> None:
    name = host_identity(home)
    copy = Home(tmp_path / "copy")
    shutil.copytree(home.path, copy.path)
    other = host_identity(copy)
    assert other != name
    assert host_identity(copy) == other
    assert host_identity(home) == name


@pytest.mark.parametrize("content", [b"", b"name\n", b"\xff\xfe x y z"])
def test_a_damaged_name_is_replaced(home: Home, content: bytes) -> None:
    (home.path / "host_id").write_bytes(content)
    name = host_identity(home)
    assert str(uuid.UUID(name)) == name == host_identity(home)


def test_a_name_that_can_not_be_kept_is_told(home: Home) -> None:
    (home.path / "host_id").mkdir()
    with pytest.raises(ConfigError, match=r"host_id can't be kept: Is a directory"):
        host_identity(home)
