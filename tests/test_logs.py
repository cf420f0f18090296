from __future__ import annotations

import json
import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_proxy.errors import ConfigError
from llm_proxy.logs import configure_logging, reopen_logs
from llm_proxy.secrets import Secret

logger = logging.getLogger("llm_proxy.some.module")


@pytest.fixture(autouse=True)
def untouched_logging() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("llm_proxy")
    before = root.handlers[:], root.level, ours.level
    root.handlers = []
    yield
    for handler in root.handlers:
        handler.close()
    root.handlers, root.level = before[0], before[1]
    ours.setLevel(before[2])


def _entries(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_json_line_says_when_what_and_who(tmp_path: Path) -> None:
    file = tmp_path / "a.log"
    configure_logging("info", "json", file)
    logger.warning("worker %d left", 7, extra={"worker": 7, "path": Path("/x")})
    (entry,) = _entries(file)
    assert str(entry.pop("timestamp")).endswith("Z")
    assert entry == {
        "level": "warning",
        "logger": "llm_proxy.some.module",
        "pid": os.getpid(),
        "message": "worker 7 left",
        "worker": 7,
        "path": "/x",
    }


def test_log_file_is_its_owners_alone(tmp_path: Path) -> None:
    configure_logging(file=tmp_path / "a.log")
    assert stat.S_IMODE((tmp_path / "a.log").stat().st_mode) == 0o600


def test_auto_is_json_away_from_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging()
    logger.info("hello")
    assert json.loads(capsys.readouterr().err)["message"] == "hello"


def test_console_line_is_for_people_and_without_colours(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logging("info", "console")
    logger.info("hello %s", "you", extra={"worker": 7})
    line = capsys.readouterr().err
    assert line.endswith("Z INFO    hello you worker=7\n")
    assert "\33" not in line


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_terminal_gets_colours_unless_no_color(
    monkeypatch: pytest.MonkeyPatch, no_color: str, coloured: bool
) -> None:
    master, slave = os.openpty()
    monkeypatch.setenv("NO_COLOR", no_color)
    with os.fdopen(slave, "w") as terminal:
        monkeypatch.setattr("sys.stderr", terminal)
        configure_logging()
        logger.warning("look")
        line = os.read(master, 1000).decode()
    os.close(master)
    assert "WARNING" in line
    assert ("\33[33m" in line) is coloured


def test_line_cannot_be_forged_from_a_message(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info", "console")
    logger.info("path %s", "/x\n2026 INFO forged\33[2J\x9b")
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_secret_is_never_shown(tmp_path: Path) -> None:
    for format in ("json", "console"):
        file = tmp_path / format
        configure_logging("debug", format, file)
        secret = Secret("canary")
        logger.info("key %s %r", secret, secret, extra={"key": secret})
        assert "canary" not in file.read_text()
        assert file.read_text().count("***") == 3


def test_level_holds_for_us_and_libraries_are_heard_from_warnings_on(tmp_path: Path) -> None:
    file = tmp_path / "a.log"
    configure_logging("debug", "json", file)
    logger.debug("ours")
    logging.getLogger("peewee").debug("SELECT secret")
    logging.getLogger("peewee").warning("theirs")
    configure_logging("error", "json", file)
    logger.warning("too quiet")
    assert [entry["message"] for entry in _entries(file)] == ["ours", "theirs"]


def test_traceback_comes_with_errors_and_otherwise_only_when_debugging(tmp_path: Path) -> None:
    def log_all(level: str) -> list[bool]:
        file = tmp_path / level
        configure_logging(level, "json", file)
        try:
            raise ValueError("reason")
        except ValueError:
            logger.warning("warned", exc_info=True)
            logger.exception("failed")
        entries = _entries(file)
        assert all(entry["error"] == "ValueError: reason" for entry in entries)
        return ["traceback" in entry for entry in entries]

    assert log_all("info") == [False, True]
    assert log_all("debug") == [True, True]


def test_console_traceback_follows_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info", "console")
    try:
        raise ValueError("reason")
    except ValueError:
        logger.exception("failed")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].endswith("ERROR   failed (ValueError: reason)")
    assert lines[1].startswith("Traceback")


def test_file_that_was_moved_away_is_followed_by_a_new_one(tmp_path: Path) -> None:
    file = tmp_path / "a.log"
    configure_logging("info", "json", file)
    logger.info("first")
    file.rename(tmp_path / "a.log.1")
    logger.info("second")
    assert [entry["message"] for entry in _entries(tmp_path / "a.log.1")] == ["first"]
    assert [entry["message"] for entry in _entries(file)] == ["second"]


def test_reopening_makes_the_file_at_once(tmp_path: Path) -> None:
    file = tmp_path / "a.log"
    configure_logging("info", "json", file)
    file.unlink()
    reopen_logs()
    assert file.exists()


def test_log_goes_on_in_the_old_file_when_no_new_one_can_be_made(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    configure_logging("info", "json", folder / "a.log")
    folder.rename(tmp_path / "moved")
    logger.info("still here")
    assert [entry["message"] for entry in _entries(tmp_path / "moved/a.log")] == ["still here"]


def test_log_file_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="log file .* can't be written: No such file or dir"):
        configure_logging(file=tmp_path / "no" / "a.log")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full_disk_is_not_an_error_of_the_server(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info", "json", Path("/dev/full"))
    logger.info("lost")
    assert capsys.readouterr().err == ""
