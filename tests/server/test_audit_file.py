from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from llm_proxy.audit import Head, encode_record, head_of
from llm_proxy.audit_chain import verify_files
from llm_proxy.server.audit_file import AuditFile
from tests.server.audit_records import make_records

RECORDS = make_records(9)
LINE = len(encode_record(RECORDS[0])) + 1


def opened(path: Path, *, max_bytes: int = 1 << 20, max_backups: int = 3) -> AuditFile:
    file = AuditFile(path, chain="one", max_bytes=max_bytes, max_backups=max_backups)
    file.ensure_open()
    return file


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


def test_records_are_lines_of_a_private_file(path: Path) -> None:
    file = opened(path)
    file.append(RECORDS[:2])
    file.append(RECORDS[2:3])
    assert file.head == head_of(RECORDS[2])
    assert path.read_bytes() == b"".join(encode_record(r) + b"\n" for r in RECORDS[:3])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    file.close()


def test_a_readable_file_becomes_private(path: Path) -> None:
    path.touch(0o644)
    opened(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_next_one_goes_on_where_the_file_ends(path: Path) -> None:
    first = opened(path)
    first.append(RECORDS[:4])
    first.close()
    second = opened(path)
    assert second.head == head_of(RECORDS[3])
    second.append(RECORDS[4:])
    second.close()
    assert verify_files([path], head=head_of(RECORDS[-1])).is_sound


@pytest.mark.parametrize("cut", range(1, LINE, 37))
def test_line_that_a_crash_cut_is_cut_off(path: Path, cut: int) -> None:
    file = opened(path)
    file.append(RECORDS[:3])
    file.close()
    os.truncate(path, path.stat().st_size - cut)
    file = opened(path)
    assert file.head == head_of(RECORDS[1])
    assert len(file.mended) == 1
    file.append(RECORDS[2:])
    file.close()
    assert verify_files([path], head=head_of(RECORDS[-1])).is_sound


@pytest.mark.parametrize("text", [b"nonsense\n", b"{}\n", encode_record(RECORDS[0])[:-1] + b"\n"])
def test_file_that_ends_with_something_else_is_set_aside(path: Path, text: bytes) -> None:
    path.write_bytes(text)
    file = opened(path)
    assert file.head == Head()
    file.append(RECORDS[:1])
    file.close()
    assert path.with_name("audit.jsonl.aside1").read_bytes() == text
    assert file.mended == ["its last line is no record; it is kept as audit.jsonl.aside1"]


def test_files_of_another_server_are_set_aside(path: Path) -> None:
    for name in ("audit.jsonl", "audit.jsonl.1", "audit.jsonl.aside1"):
        path.with_name(name).write_bytes(encode_record(make_records(1, chain="two")[0]) + b"\n")
    file = opened(path)
    file.append(RECORDS[:1])
    file.close()
    assert len(path.read_bytes().splitlines()) == 1
    assert "chain two; it is kept as audit.jsonl.aside2" in file.mended[0]
    assert file.paths == [path]
    assert path.with_name("audit.jsonl.1.aside2").exists()


def test_full_file_is_rotated_and_the_oldest_goes(path: Path) -> None:
    file = opened(path, max_bytes=2 * LINE, max_backups=2)
    for record in RECORDS:
        file.append([record])
    file.close()
    assert [p.name for p in file.paths] == ["audit.jsonl.2", "audit.jsonl.1", "audit.jsonl"]
    verdict = verify_files(file.paths, head=head_of(RECORDS[-1]))
    assert verdict.is_sound
    assert (verdict.first, verdict.last) == (5, 9)


def test_a_start_right_after_a_rotation_knows_the_end(path: Path) -> None:
    file = opened(path)
    file.append(RECORDS[:3])
    file.close()
    path.rename(path.with_name("audit.jsonl.1"))
    file = opened(path)
    assert file.head == head_of(RECORDS[2])
    file.close()


def test_file_that_was_moved_away_is_begun_anew(path: Path) -> None:
    file = opened(path)
    file.append(RECORDS[:2])
    path.rename(path.with_name("elsewhere"))
    file.ensure_open()
    assert file.head == head_of(RECORDS[1])
    file.append(RECORDS[2:3])
    file.close()
    assert path.read_bytes() == encode_record(RECORDS[2]) + b"\n"


def test_file_that_went_back_is_noted(path: Path) -> None:
    file = opened(path)
    file.append(RECORDS[:1])
    older = path.read_bytes()
    file.append(RECORDS[1:3])
    path.unlink()
    path.write_bytes(older)
    file.ensure_open()
    assert file.head == head_of(RECORDS[0])
    assert file.mended == ["it ended with 1 after 3 was written"]
    file.close()


def test_failed_write_leaves_no_half_record(path: Path) -> None:
    """As on a full disk: a limit on the size of files."""
    import resource
    import signal

    file = opened(path)
    file.append(RECORDS[:1])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LINE + LINE // 2, limits[1]))
    try:
        with pytest.raises(OSError):
            file.append(RECORDS[1:3])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    file.ensure_open()
    assert file.head == head_of(RECORDS[0])
    file.append(RECORDS[1:])
    file.close()
    assert verify_files([path], head=head_of(RECORDS[-1])).is_sound


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        opened(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="regular"):
        opened(tmp_path / "pipe")


def test_reading_stops_at_damage(path: Path) -> None:
    file = opened(path)
    file.append(RECORDS[:3])
    assert file.read_after(1) == RECORDS[1:3]
    path.write_bytes(encode_record(RECORDS[0]) + b"\nx\n" + encode_record(RECORDS[2]) + b"\n")
    assert file.read_after(0) == RECORDS[:1]
    file.close()
