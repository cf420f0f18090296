"""The writer as a real process, fed by real recorders over its socket."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llm_proxy.dispatcher.writer import listen, main
from llm_proxy.errors import ConfigError
from llm_proxy.events.record import FRAME_HEAD, RECORD, RecordFields
from llm_proxy.server.gateway.recorder import Recorder

pytestmark = pytest.mark.anyio
BODY = b'{"model":"m","usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}'


def a_record(
    request_id: str, *, body: bytes = BODY, exchange: int = 0, encoding: str = ""
) -> RecordFields:
    return (
        RECORD, exchange, 1700000000.5, request_id, "p", "t", "openai", "/v1/chat/completions",
        "POST", 200, 12.5, 11.5, 11.75, False, 400, 413, False, "", "127.0.0.1", encoding, body,
    )  # fmt: skip


class WriterProcess:
    """A writer on a socket of its own, and what it wrote."""

    def __init__(self, socket_path: Path, log: Path) -> None:
        self.socket_path = socket_path
        self.log = log

    async def start(self, *options: str, environ: dict[str, str] | None = None) -> WriterProcess:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "llm_proxy.dispatcher.writer"),
            *("--socket", str(self.socket_path), "--file", str(self.log)),
            *("--parent-fd", str(theirs.fileno()), *options),
            pass_fds=[theirs.fileno()],
            stderr=subprocess.PIPE,
            env=environ,
        )
        theirs.close()
        self.parent = ours
        async with asyncio.timeout(10):
            self.ready = await asyncio.get_running_loop().sock_recv(ours, 1)
        return self

    def lines(self) -> list[dict[str, Any]]:
        files = [*sorted(self.log.parent.glob(self.log.name + ".*"), reverse=True), self.log]
        found = [file.read_bytes() for file in files if file.exists()]
        return [json.loads(line) for line in b"".join(found).splitlines()]

    async def has_lines(self, count: int) -> list[dict[str, Any]]:
        async with asyncio.timeout(10):
            while self.log.read_bytes().count(b"\n") < count:
                await asyncio.sleep(0.01)
        return self.lines()

    async def ends(self) -> tuple[int, str]:
        """Its exit code, and what it logged."""
        async with asyncio.timeout(10):
            _, log = await self.process.communicate()
        self.parent.close()
        assert self.process.returncode is not None
        return self.process.returncode, log.decode()

    async def terminate(self) -> tuple[int, str]:
        self.process.send_signal(signal.SIGTERM)
        return await self.ends()


@pytest.fixture
def socket_path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="wri") as folder:  # tmp_path is too long for a socket
        yield Path(folder) / "events.sock"


@pytest.fixture
async def writer(socket_path: Path, tmp_path: Path) -> AsyncIterator[WriterProcess]:
    """Started by the test; killed after it if it still runs."""
    writer = WriterProcess(socket_path, tmp_path / "events.jsonl")
    yield writer
    if writer.process.returncode is None:
        writer.process.kill()
        await writer.ends()


async def recorder_of(writer: WriterProcess) -> Recorder:
    recorder = Recorder(str(writer.socket_path))
    recorder.start()
    return recorder


async def test_records_become_lines_with_their_metadata(writer: WriterProcess) -> None:
    await writer.start()
    assert writer.ready == b"R"
    assert stat.S_IMODE(writer.socket_path.stat().st_mode) == 0o600
    recorder = await recorder_of(writer)
    recorder.put(a_record("plain"))
    number = recorder.new_exchange()
    coded = gzip.compress(BODY)
    recorder.part(number, coded[:30], content_encoding="gzip", stream=False)
    recorder.put(a_record("parts", exchange=number, encoding="gzip", body=coded[30:]))
    lines = await writer.has_lines(2)
    assert [line["request_id"] for line in lines] == ["plain", "parts"]
    assert [line["metadata"]["total_tokens"] for line in lines] == [3, 3]
    assert stat.S_IMODE(writer.log.stat().st_mode) == 0o600
    await recorder.close(1)
    assert await writer.terminate() == (0, "")
    assert not writer.socket_path.exists()


async def test_two_workers_are_served_at_once(writer: WriterProcess) -> None:
    await writer.start()
    recorders = [await recorder_of(writer) for _ in range(2)]
    for number in range(50):
        for name, recorder in zip("ab", recorders, strict=True):
            recorder.put(a_record(f"{name}{number}"))
    lines = await writer.has_lines(100)
    for name in "ab":
        own = [line["request_id"] for line in lines if line["request_id"].startswith(name)]
        assert own == [f"{name}{number}" for number in range(50)]
    for recorder in recorders:
        await recorder.close(1)
    assert await writer.terminate() == (0, "")


async def test_termination_waits_for_what_workers_still_send(writer: WriterProcess) -> None:
    await writer.start()
    recorder = await recorder_of(writer)
    recorder.put(a_record("before"))
    await writer.has_lines(1)
    writer.process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(30):
        while writer.socket_path.exists():
            await asyncio.sleep(0.01)
    for number in range(3_000):
        recorder.put(a_record(str(number)))
    await recorder.close(5)
    assert recorder.dropped == 0
    assert await writer.ends() == (0, "")
    assert len(writer.lines()) == 3_001


async def test_termination_waits_no_longer_than_it_was_told(writer: WriterProcess) -> None:
    await writer.start("--drain-timeout", "0.2")
    recorder = await recorder_of(writer)
    recorder.put(a_record("one"))
    await writer.has_lines(1)
    code, log = await writer.terminate()
    assert code == 0
    assert "1 workers had not finished in time" in log
    await recorder.close(0)


async def test_end_of_the_supervisor_ends_the_writer(writer: WriterProcess) -> None:
    await writer.start()
    recorder = await recorder_of(writer)
    recorder.put(a_record("one"))
    await writer.has_lines(1)
    recorder.put(a_record("two"))
    writer.parent.close()
    await recorder.close(1)
    assert await writer.ends() == (0, "")
    assert [line["request_id"] for line in writer.lines()] == ["one", "two"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
async def test_signals_of_the_terminal_do_not_end_it(
    writer: WriterProcess, number: signal.Signals
) -> None:
    await writer.start()
    writer.process.send_signal(number)
    recorder = await recorder_of(writer)
    recorder.put(a_record("after"))
    await writer.has_lines(1)
    await recorder.close(1)
    assert await writer.terminate() == (0, "")


async def test_frame_torn_by_a_killed_worker_is_ignored(writer: WriterProcess) -> None:
    await writer.start()
    frame = msgspec.msgpack.encode([a_record("whole")])
    torn = msgspec.msgpack.encode([a_record("torn", body=bytes(100_000))])
    program = (
        "import os, signal, socket, sys\n"
        "sock = socket.socket(socket.AF_UNIX)\n"
        "sock.connect(sys.argv[1])\n"
        "sock.sendall(sys.stdin.buffer.read())\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    worker = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, str(writer.socket_path), stdin=subprocess.PIPE
    )
    data = FRAME_HEAD.pack(len(frame)) + frame + FRAME_HEAD.pack(len(torn)) + torn[:50_000]
    await worker.communicate(data)
    assert worker.returncode == -signal.SIGKILL
    recorder = await recorder_of(writer)
    recorder.put(a_record("after"))
    lines = await writer.has_lines(2)
    assert [line["request_id"] for line in lines] == ["whole", "after"]
    await recorder.close(1)
    assert await writer.terminate() == (0, "")


async def test_stranger_is_hung_up_on(writer: WriterProcess) -> None:
    await writer.start()
    reader, stranger = await asyncio.open_unix_connection(writer.socket_path)
    stranger.write(b"GET / HTTP/1.1\r\n\r\n")
    async with asyncio.timeout(30):
        assert await reader.read() == b""
    stranger.close()
    code, log = await writer.terminate()
    assert code == 0
    assert "a worker's connection is closed: a frame of 542393671 bytes" in log


async def test_recorder_goes_on_with_a_writer_that_replaces_a_killed_one(
    writer: WriterProcess,
) -> None:
    await writer.start()
    recorder = await recorder_of(writer)
    recorder.put(a_record("first"))
    await writer.has_lines(1)
    writer.process.kill()
    assert (await writer.ends())[0] == -signal.SIGKILL
    await writer.start()
    recorder.put(a_record("second"))
    lines = await writer.has_lines(2)
    assert [line["request_id"] for line in lines] == ["first", "second"]
    await recorder.close(1)
    assert await writer.terminate() == (0, "")


async def test_full_files_are_rotated(writer: WriterProcess) -> None:
    await writer.start("--max-size-mb", "1", "--max-backups", "2")
    recorder = await recorder_of(writer)
    for number in range(4_000):
        recorder.put(a_record(str(number)))
    await recorder.close(5)
    assert await writer.terminate() == (0, "")
    assert [line["request_id"] for line in writer.lines()] == [str(n) for n in range(4_000)]
    rotated = writer.log.with_name("events.jsonl.1")
    assert 0.99 * (1 << 20) < rotated.stat().st_size <= 1 << 20


async def test_moved_file_is_reopened_on_request(writer: WriterProcess, tmp_path: Path) -> None:
    app_log = tmp_path / "app.log"
    await writer.start("--log-file", str(app_log))
    recorder = await recorder_of(writer)
    recorder.put(a_record("one"))
    await writer.has_lines(1)
    writer.log.rename(tmp_path / "moved")
    writer.process.send_signal(signal.SIGUSR1)
    async with asyncio.timeout(30):
        while not writer.log.exists():
            await asyncio.sleep(0.01)
    recorder.put(a_record("two"))
    lines = await writer.has_lines(1)
    assert [line["request_id"] for line in lines] == ["two"]
    await recorder.close(1)
    await writer.terminate()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux only")
async def test_full_disk_is_said_once_and_the_writer_lives(
    writer: WriterProcess, socket_path: Path
) -> None:
    writer.log = Path("/dev/full")
    await writer.start()
    recorder = await recorder_of(writer)
    for number in range(10):
        recorder.put(a_record(str(number)))
    await asyncio.sleep(0.2)
    recorder.put(a_record("last"))
    await recorder.close(1)
    writer.process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(30):
        told = await asyncio.get_running_loop().sock_recv(writer.parent, 64)
    assert int.from_bytes(told, "big") == 11  # to the supervisor, for its metrics
    code, log = await writer.ends()
    assert code == 0
    assert log.count("/dev/full can't be written (No space left on device)") == 1
    assert "11 records were lost" in log


async def test_writer_is_small(writer: WriterProcess) -> None:
    measured = {name: os.environ[name] for name in os.environ if "COVERAGE" not in name}
    await writer.start(environ=measured)
    status = Path(f"/proc/{writer.process.pid}/status")
    if status.exists():  # Linux only
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmRSS"))
        assert int(line.split()[1]) <= 25 * 1024
    assert await writer.terminate() == (0, "")


# ---- what can't work is one clear sentence ----


def test_file_that_can_not_be_written_is_refused(
    socket_path: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code = main(["--socket", str(socket_path), "--file", str(tmp_path)])
    assert code == 1
    message = capfd.readouterr().err
    assert f"the event log {tmp_path} can't be written (Is a directory)" in message
    assert not socket_path.exists()


@pytest.mark.parametrize(
    "choose", [lambda folder: folder / "missing" / "sock", lambda folder: folder / ("x" * 120)]
)
def test_socket_that_can_not_be_bound_is_refused(
    choose: Callable[[Path], Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code = main(["--socket", str(choose(tmp_path)), "--file", str(tmp_path / "log")])
    assert code == 1
    assert "the record writer can't listen on" in capfd.readouterr().err


def test_socket_that_was_left_behind_is_replaced(socket_path: Path) -> None:
    first = listen(socket_path)
    first.close()
    second = listen(socket_path)
    assert stat.S_IMODE(socket_path.stat().st_mode) == 0o600
    second.close()


def test_umask_is_left_as_it_was(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        with pytest.raises(ConfigError):
            listen(tmp_path / "missing" / "sock")
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)
