from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from llm_proxy.errors import ConfigError
from llm_proxy.home import Home, write_private
from llm_proxy.secrets import Secret


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_home_is_where_the_environment_says() -> None:
    assert Home.default({"LLM_PROXY_HOME": "/srv/x"}).path == Path("/srv/x")
    assert Home.default({"LLM_PROXY_HOME": "~/x"}).path == Path.home() / "x"
    assert Home.default({"LLM_PROXY_HOME": "x"}).path == Path.cwd() / "x"


def test_home_is_the_users_data_folder_otherwise() -> None:
    path = Home.default({}).path
    assert path.name == "llm-proxy"
    assert path.is_relative_to(Path.home())


def test_everything_lies_in_the_home(tmp_path: Path) -> None:
    home = Home(tmp_path)
    files = (home.database, home.pid_file, home.state_file, home.log_file, home.env_file)
    assert [file.name for file in (*files, home.providers_file)] == [
        "llm-proxy.db",
        "server.pid",
        "server.json",
        "server.log",
        "llm-proxy.env",
        "providers.yaml",
    ]
    assert {file.parent for file in files} == {tmp_path}


def test_new_home_is_its_owners_alone(tmp_path: Path) -> None:
    home = Home(tmp_path / "a" / "b")
    home.ensure()
    assert _mode(home.path) == 0o700


def test_empty_folder_is_closed_and_a_used_one_is_left_as_it_is(tmp_path: Path) -> None:
    empty, used = tmp_path / "empty", tmp_path / "used"
    for path in (empty, used):
        path.mkdir(mode=0o755)
    (used / "something").touch()
    Home(empty).ensure()
    Home(used).ensure()
    assert _mode(empty) == 0o700
    assert _mode(used) == 0o755


def test_file_in_the_way_of_the_home_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "home"):
        with pytest.raises(ConfigError, match=f"the home folder {path} can't be made"):
            Home(path).ensure()


def test_home_that_cannot_be_made_says_why_and_what_to_do() -> None:
    with pytest.raises(ConfigError, match="/proc/nowhere can't be used: .*; set LLM_PROXY_HOME"):
        Home(Path("/proc/nowhere")).ensure()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everywhere")
def test_home_of_somebody_else_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o000)
    with pytest.raises(ConfigError, match="set LLM_PROXY_HOME to a folder that you can write to"):
        Home(tmp_path).has_env_file()
    tmp_path.chmod(0o700)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_home_without_write_permission_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    (tmp_path / "x").exists()
    try:
        with pytest.raises(ConfigError, match="can't be used"):
            Home(tmp_path / "home").ensure()
    finally:
        tmp_path.chmod(0o700)


def test_secret_is_kept_private_and_read_back(tmp_path: Path) -> None:
    home = Home(tmp_path)
    path = home.write_secret("management_token", Secret("first"))
    home.write_secret("management_token", Secret("second"))
    assert home.read_secret("management_token") == Secret("second")
    assert _mode(path) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["management_token"]


def test_created_secret_never_replaces_one(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert home.create_secret("encryption_key", Secret("first")) == Secret("first")
    assert home.create_secret("encryption_key", Secret("second")) == Secret("first")
    assert [entry.name for entry in tmp_path.iterdir()] == ["encryption_key"]


def test_absent_secret_is_none_and_a_damaged_one_an_error(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert home.read_secret("management_token") is None
    home.secret_file("management_token").write_text("\n")
    with pytest.raises(ConfigError, match="management_token is empty; restore it, or delete it"):
        home.read_secret("management_token")
    home.secret_file("management_token").write_bytes(b"\xff\xff")
    with pytest.raises(ConfigError, match="can't be read: it isn't text"):
        home.read_secret("management_token")
    home.secret_file("encryption_key").mkdir()
    with pytest.raises(ConfigError, match="can't be read: Is a directory"):
        home.read_secret("encryption_key")


def test_private_file_is_not_readable_even_with_an_open_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        write_private(tmp_path / "file", "text")
    finally:
        os.umask(before)
    assert _mode(tmp_path / "file") == 0o600


def test_private_file_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigError, match="folder can't be written: Is a directory"):
        write_private(tmp_path / "folder", "text")
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder"]
