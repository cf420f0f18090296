from __future__ import annotations

import logging
import os
import stat
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_proxy.dispatcher.sinks.file import FileSink

needs_dev_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux only")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def opened(
    path: Path, *, max_bytes: int = 1 << 20, max_backups: int = 3, clock: Clock | None = None
) -> FileSink:
    sink = FileSink(path, max_bytes=max_bytes, max_backups=max_backups, clock=clock or Clock())
    sink.open()
    return sink


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_lines_are_appended_to_a_file_of_the_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "log"
    sink = opened(path)
    sink.write(b"one\n")
    sink.write(b"two\nthree\n")
    sink.close()
    assert path.read_bytes() == b"one\ntwo\nthree\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_existing_file_is_continued_and_counts_into_its_size(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"old line\n")
    sink = opened(path, max_bytes=12)
    sink.write(b"new\n")
    sink.close()
    assert path.read_bytes() == b"new\n"
    assert (tmp_path / "log.1").read_bytes() == b"old line\n"


def test_torn_last_line_gets_an_end(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b'whole\n{"torn":')
    sink = opened(path)
    sink.write(b"next\n")
    sink.close()
    assert path.read_bytes() == b'whole\n{"torn":\nnext\n'


def test_full_files_are_numbered_and_the_last_one_goes(tmp_path: Path) -> None:
    path = tmp_path / "log"
    sink = opened(path, max_bytes=10, max_backups=2)
    for number in range(5):
        sink.write(b"line %d.\n" % number)
    sink.close()
    assert names(tmp_path) == ["log", "log.1", "log.2"]
    assert path.read_bytes() == b"line 4.\n"
    assert (tmp_path / "log.1").read_bytes() == b"line 3.\n"
    assert (tmp_path / "log.2").read_bytes() == b"line 2.\n"


def test_without_backups_a_full_file_starts_anew(tmp_path: Path) -> None:
    sink = opened(tmp_path / "log", max_bytes=10, max_backups=0)
    for number in range(3):
        sink.write(b"line %d.\n" % number)
    sink.close()
    assert names(tmp_path) == ["log"]
    assert (tmp_path / "log").read_bytes() == b"line 2.\n"


@settings(max_examples=40, deadline=None)
@given(
    batches=st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=6), max_size=12),
    max_bytes=st.integers(1, 60),
)
def test_rotation_never_splits_loses_or_reorders_a_line(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[int]], max_bytes: int
) -> None:
    folder = tmp_path_factory.mktemp("rotation")
    sink = opened(folder / "log", max_bytes=max_bytes, max_backups=100)
    lines = [b"x" * size + b"\n" for batch in batches for size in batch]
    for batch in batches:
        sink.write(b"".join(b"x" * size + b"\n" for size in batch))
    sink.close()
    files = sorted(folder.glob("log.*"), key=lambda file: -int(file.suffix[1:]))
    contents = [file.read_bytes() for file in [*files, folder / "log"]]
    assert b"".join(contents) == b"".join(lines)
    for content in contents[:-1]:
        assert content.endswith(b"\n")
    for content in contents:
        assert len(content) <= max_bytes or content.count(b"\n") == 1


def test_file_that_can_not_be_rotated_goes_on_growing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, clock = tmp_path / "log", Clock()
    (tmp_path / "log.1").mkdir()
    (tmp_path / "log.1" / "in the way").touch()
    (tmp_path / "log.2").mkdir()
    (tmp_path / "log.2" / "too").touch()
    sink = opened(path, max_bytes=10, max_backups=2, clock=clock)
    for number in range(4):
        sink.write(b"line %d.\n" % number)
    assert path.read_bytes() == b"".join(b"line %d.\n" % number for number in range(4))
    assert len(caplog.records) == 1
    for name in ("log.1", "log.2"):
        for file in (tmp_path / name).iterdir():
            file.unlink()
        (tmp_path / name).rmdir()
    clock.now += 60
    sink.write(b"line 4.\n")
    sink.close()
    assert path.read_bytes() == b"line 4.\n"


@pytest.mark.parametrize("is_new", [True, False])
def test_moved_file_is_followed_by_a_new_one_on_reopen(tmp_path: Path, is_new: bool) -> None:
    path = tmp_path / "log"
    sink = opened(path)
    sink.write(b"one\n")
    path.rename(tmp_path / "moved")
    if is_new:
        path.touch()
    sink.reopen()
    sink.write(b"two\n")
    sink.close()
    assert (tmp_path / "moved").read_bytes() == b"one\n"
    assert path.read_bytes() == b"two\n"


def test_moved_or_removed_file_is_noticed_within_a_second(tmp_path: Path) -> None:
    path, clock = tmp_path / "log", Clock()
    sink = opened(path, clock=clock)
    sink.write(b"one\n")
    path.unlink()
    clock.now += 1
    sink.write(b"two\n")
    sink.close()
    assert path.read_bytes() == b"two\n"


def test_truncated_file_is_not_rotated_for_what_it_was(tmp_path: Path) -> None:
    path, clock = tmp_path / "log", Clock()
    sink = opened(path, max_bytes=12, clock=clock)
    sink.write(b"line one.\n")
    os.truncate(path, 0)
    clock.now += 1
    sink.write(b"line two.\n")
    sink.close()
    assert names(tmp_path) == ["log"]
    assert path.read_bytes() == b"line two.\n"


def test_file_that_can_not_be_opened_is_an_error_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        opened(tmp_path)
    with pytest.raises(FileNotFoundError):
        opened(tmp_path / "missing" / "log")


# ---- failing: a folder that is gone stands for a disk that is full ----


def test_lines_are_kept_and_written_when_the_file_is_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, clock = tmp_path / "folder", Clock()
    folder.mkdir()
    sink = opened(folder / "log", clock=clock)
    assert sink.wait_s() is None
    sink.write(b"one\n")
    folder.rename(tmp_path / "gone")
    clock.now += 1
    with caplog.at_level(logging.WARNING):
        sink.write(b"two\n")
        assert sink.wait_s() == 1.0
        sink.write(b"three\n")
        folder.mkdir()
        sink.flush()
        assert not (folder / "log").exists()  # not yet: it failed this second
        clock.now += 1
        assert sink.wait_s() == 0.0
        sink.flush()
    sink.close()
    assert (folder / "log").read_bytes() == b"two\nthree\n"
    assert (tmp_path / "gone" / "log").read_bytes() == b"one\n"
    first, second = (record.getMessage() for record in caplog.records)
    assert "can't be written (No such file or directory)" in first
    assert "0 records were dropped" in second


@needs_dev_full
def test_full_disk_drops_and_counts_in_bounded_memory(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    sink = opened(Path("/dev/full"), clock=clock)
    line = b"x" * 99_999 + b"\n"
    tracemalloc.start()
    for _ in range(1_000):
        sink.write(line)
        clock.now += 0.3
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20 << 20
    assert sink.take_dropped() == 0  # nobody could be told yet
    sink.close()
    first, last = (record.getMessage() for record in caplog.records)
    assert "/dev/full can't be written (No space left on device)" in first
    assert last.startswith("1000 records were lost")
    assert sink.lost == 1000


def test_batch_that_fits_in_part_loses_only_the_rest(tmp_path: Path) -> None:
    folder, clock = tmp_path / "folder", Clock()
    folder.mkdir()
    sink = opened(folder / "log", max_bytes=100 << 20, clock=clock)
    folder.rename(tmp_path / "gone")
    clock.now += 1
    line = b"x" * 999_999 + b"\n"
    sink.write(line)
    sink.write(line * 9)
    folder.mkdir()
    clock.now += 1
    sink.flush()
    assert (folder / "log").read_bytes() == line * 8
    assert sink.take_dropped() == 2
    assert sink.take_dropped() == 0
    sink.close()
    assert sink.lost == 2


@needs_dev_full
def test_lines_that_never_reach_the_file_are_reported_at_the_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sink = opened(Path("/dev/full"))
    sink.write(b"one\ntwo\n")
    sink.close()
    assert "2 records were lost: /dev/full" in caplog.records[-1].getMessage()


def test_reopen_that_fails_is_tried_again(tmp_path: Path) -> None:
    folder, clock = tmp_path / "folder", Clock()
    folder.mkdir()
    sink = opened(folder / "log", clock=clock)
    folder.rename(tmp_path / "gone")
    sink.reopen()
    sink.write(b"one\n")
    folder.mkdir()
    clock.now += 1
    sink.flush()
    assert (folder / "log").read_bytes() == b"one\n"
    sink.close()


# ---- a pipe takes part of a line, as a disk does that becomes full ----


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


def drained(reader: int) -> bytes:
    data = b""
    while True:
        try:
            piece = os.read(reader, 1 << 20)
        except BlockingIOError:
            return data
        data += piece


def test_line_that_was_written_in_part_is_finished_later(pipe: Path) -> None:
    clock = Clock()
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    sink = opened(pipe, clock=clock, max_bytes=100)
    line = b"y" * 99_999 + b"\n"
    sink.write(line + b"next\n")
    received = drained(reader)
    assert 0 < len(received) < len(line)
    for _ in range(5):
        clock.now += 1
        sink.flush()
        received += drained(reader)
    assert received == line + b"next\n"
    sink.close()
    os.close(reader)


def test_rest_of_a_torn_line_does_not_go_into_another_file(pipe: Path) -> None:
    clock = Clock()
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    sink = opened(pipe, clock=clock)
    sink.write(b"y" * 99_999 + b"\nnext\n")
    pipe.unlink()
    sink.reopen()
    clock.now += 1
    sink.flush()
    assert pipe.read_bytes() == b"next\n"
    assert sink.take_dropped() == 1
    sink.close()
    os.close(reader)


def test_pipe_that_nobody_reads_does_not_hold_the_writer(pipe: Path) -> None:
    with pytest.raises(OSError, match="No such device"):
        opened(pipe)
