from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from llm_proxy.events.record import FRAME_HEAD, RECORD, ExchangeRecord, Part, RecordFields
from llm_proxy.server.gateway.recorder import TICK_S, Recorder

pytestmark = pytest.mark.anyio
decode_frame = msgspec.msgpack.Decoder(list[Part | ExchangeRecord]).decode


@pytest.fixture
def path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="rec") as folder:  # tmp_path is too long for a socket
        yield Path(folder) / "events.sock"


class FakeWriter:
    """Listens, keeps every frame, and can be told not to read."""

    def __init__(self, path: Path) -> None:
        self.frames: list[list[Part | ExchangeRecord]] = []
        self.arrived = asyncio.Condition()
        self.connected = asyncio.Event()
        self.may_read = asyncio.Event()
        self.may_read.set()
        self._path = path
        self._connections: list[asyncio.StreamWriter] = []

    async def start(self) -> FakeWriter:
        self._path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, self._path, limit=1 << 16)
        return self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.append(writer)
        self.connected.set()
        try:
            while True:
                await self.may_read.wait()
                (length,) = FRAME_HEAD.unpack(await reader.readexactly(FRAME_HEAD.size))
                frame = await reader.readexactly(length)
                async with self.arrived:
                    self.frames.append(decode_frame(frame))
                    self.arrived.notify_all()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    @property
    def items(self) -> list[Part | ExchangeRecord]:
        return [item for frame in self.frames for item in frame]

    @property
    def records(self) -> list[ExchangeRecord]:
        return [item for item in self.items if isinstance(item, ExchangeRecord)]

    async def has_records(self, count: int) -> list[ExchangeRecord]:
        async with asyncio.timeout(10), self.arrived:
            await self.arrived.wait_for(lambda: len(self.records) >= count)
        return self.records

    async def stop(self) -> None:
        self.may_read.set()
        self._server.close()
        for connection in self._connections:
            connection.transport.abort()
        await self._server.wait_closed()


def a_record(request_id: str = "r", *, exchange: int = 0, body: bytes = b"{}") -> RecordFields:
    return (
        RECORD, exchange, 1700000000.5, request_id, "p", "t", "openai", "/v1/chat/completions",
        "POST", 200, 12.5, 11.5, 11.75, False, 400, 413, False, "", "127.0.0.1", "", body,
    )  # fmt: skip


async def started(path: Path) -> Recorder:
    recorder = Recorder(str(path))
    recorder.start()
    return recorder


async def test_records_and_parts_of_one_tick_arrive_in_one_frame_in_order(path: Path) -> None:
    writer = await FakeWriter(path).start()
    recorder = await started(path)
    await writer.connected.wait()
    number = recorder.new_exchange()
    recorder.put(a_record("first"))
    recorder.part(number, b"data: 1\n\n", content_encoding="gzip", stream=True)
    recorder.put(a_record("second", exchange=number))
    await writer.has_records(2)
    first, part, second = writer.items
    assert isinstance(first, ExchangeRecord) and first.request_id == "first"
    assert part == Part(exchange=number, content_encoding="gzip", stream=True, body=b"data: 1\n\n")
    assert isinstance(second, ExchangeRecord) and second.exchange == number
    assert len(writer.frames) == 1
    await recorder.close(1)
    await writer.stop()


async def test_exchange_numbers_differ_and_are_never_zero(path: Path) -> None:
    recorder = Recorder(str(path))
    assert [recorder.new_exchange() for _ in range(3)] == [1, 2, 3]


async def test_more_than_a_frame_takes_is_sent_in_several(path: Path) -> None:
    writer = await FakeWriter(path).start()
    recorder = await started(path)
    await writer.connected.wait()
    for number in range(5_000):
        recorder.put(a_record(str(number)))
    records = await writer.has_records(5_000)
    assert [record.request_id for record in records] == [str(n) for n in range(5_000)]
    assert len(writer.frames) == 3
    await recorder.close(1)
    await writer.stop()


async def test_long_bodies_are_sent_before_the_tick(path: Path) -> None:
    writer = await FakeWriter(path).start()
    recorder = await started(path)
    await writer.connected.wait()
    loop = asyncio.get_running_loop()
    elapsed = []
    for count in (1, 2, 3):  # a busy machine may be late once
        began = loop.time()
        recorder.part(1, bytes(3 << 20), content_encoding="", stream=False)
        recorder.put(a_record())
        await writer.has_records(count)
        elapsed.append(loop.time() - began)
    assert min(elapsed) < TICK_S / 2
    await recorder.close(1)
    await writer.stop()


async def test_nothing_is_lost_while_the_writer_is_not_there_yet(path: Path) -> None:
    recorder = await started(path)
    for number in range(100):
        recorder.put(a_record(str(number)))
    await asyncio.sleep(0)
    writer = await FakeWriter(path).start()
    records = await writer.has_records(100)
    assert [record.request_id for record in records] == [str(n) for n in range(100)]
    assert recorder.dropped == 0
    await recorder.close(1)
    await writer.stop()


async def test_without_a_writer_the_queue_is_bounded_and_the_next_record_tells(path: Path) -> None:
    recorder = await started(path)
    for number in range(40_000):
        recorder.put(a_record(str(number)))
    assert recorder.dropped > 0
    dropped, kept = recorder.dropped, 40_000 - recorder.dropped
    assert 25_000 < kept <= 50_000
    assert recorder.queued == kept
    writer = await FakeWriter(path).start()
    records = await writer.has_records(kept)
    assert records[0].dropped == dropped
    assert sum(record.dropped for record in records) == dropped
    assert [record.request_id for record in records] == [str(n) for n in range(kept)]
    await recorder.close(1)
    await writer.stop()


async def test_long_paths_count_into_the_bound(path: Path) -> None:
    recorder = await started(path)
    fields = (*a_record()[:7], "/" * 60_000, *a_record()[8:])
    for _ in range(1_000):
        recorder.put(fields)
    assert 1_000 - recorder.dropped <= (16 << 20) // 60_000
    await recorder.close(0)


async def test_writer_that_does_not_read_costs_bounded_memory_and_the_drops_are_told(
    path: Path,
) -> None:
    writer = await FakeWriter(path).start()
    recorder = await started(path)
    await writer.connected.wait()
    writer.may_read.clear()
    recorder.put(a_record())  # the reader waits for a frame: this one lets it see the flag
    total = 400
    for _ in range(total):
        recorder.put(a_record(body=bytes(100_000)))
        await asyncio.sleep(0)
    assert 0 < recorder.dropped < total
    writer.may_read.set()
    records = await writer.has_records(total + 1 - recorder.dropped)
    recorder.put(a_record("last"))
    records = await writer.has_records(len(records) + 1)
    assert sum(record.dropped for record in records) == recorder.dropped
    assert len(records) + recorder.dropped == total + 2
    await recorder.close(1)
    await writer.stop()


async def test_reconnects_to_a_new_writer(path: Path) -> None:
    first = await FakeWriter(path).start()
    recorder = await started(path)
    recorder.put(a_record("one"))
    await first.has_records(1)
    await first.stop()
    second = await FakeWriter(path).start()
    while not second.connected.is_set():
        recorder.put(a_record("two"))
        await asyncio.sleep(TICK_S / 5)
    records = await second.has_records(1)
    assert records[0].request_id == "two"
    await recorder.close(1)
    await second.stop()


async def test_frame_in_flight_is_counted_when_the_connection_is_lost(path: Path) -> None:
    writer = await FakeWriter(path).start()
    recorder = await started(path)
    await writer.connected.wait()
    writer.may_read.clear()
    recorder.put(a_record("wake"))
    await writer.has_records(1)
    recorder.put(a_record(body=bytes(8 << 20)))
    await asyncio.sleep(2 * TICK_S)  # handed to the kernel as far as it takes it
    await writer.stop()
    async with asyncio.timeout(30):
        while not recorder.dropped:
            await asyncio.sleep(0.01)
    assert recorder.dropped == 1
    await recorder.close(0.1)


async def test_record_that_cannot_be_encoded_costs_only_itself(path: Path) -> None:
    writer = await FakeWriter(path).start()
    recorder = await started(path)
    recorder.put(a_record("\ud800"))
    recorder.put(a_record("good"))
    (good,) = await writer.has_records(1)
    assert (good.request_id, recorder.dropped) == ("good", 1)
    recorder.put(a_record("\ud800"))
    recorder.put(a_record("after"))
    records = await writer.has_records(2)
    assert sum(record.dropped for record in records) + 1 == recorder.dropped == 2
    await recorder.close(1)
    await writer.stop()


async def test_close_sends_what_is_queued(path: Path) -> None:
    writer = await FakeWriter(path).start()
    recorder = await started(path)
    for number in range(3_000):
        recorder.put(a_record(str(number), body=bytes(1_000)))
    await recorder.close(5)
    assert len(await writer.has_records(3_000)) == 3_000
    assert recorder.dropped == 0
    await writer.stop()


async def test_close_counts_and_logs_once_what_could_not_be_sent(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = await started(path)
    recorder.part(1, b"x", content_encoding="", stream=False)
    recorder.put(a_record(exchange=1))
    recorder.put(a_record())
    with caplog.at_level(logging.WARNING):
        await recorder.close(0.05)
    assert recorder.dropped == 2
    assert [r.getMessage() for r in caplog.records if "lost" in r.getMessage()] == [
        "2 exchange records were lost on their way to the writer"
    ]


async def test_close_gives_up_on_a_writer_that_does_not_read(path: Path) -> None:
    writer = await FakeWriter(path).start()
    recorder = await started(path)
    await writer.connected.wait()
    writer.may_read.clear()
    recorder.put(a_record())
    await writer.has_records(1)
    recorder.put(a_record(body=bytes(8 << 20)))
    async with asyncio.timeout(30):
        await recorder.close(0.3)
    assert recorder.dropped == 1
    await writer.stop()


async def test_what_comes_after_close_is_counted(path: Path) -> None:
    recorder = await started(path)
    await recorder.close(0)
    recorder.put(a_record())
    recorder.part(1, b"x", content_encoding="", stream=False)
    await asyncio.sleep(2 * TICK_S)  # the tick it set finds nothing to do
    assert recorder.dropped == 1


async def test_unreachable_writer_is_logged_once(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        recorder = await started(path)
        recorder.put(a_record())
        await asyncio.sleep(0.7)  # two tries
        writer = await FakeWriter(path).start()
        await writer.has_records(1)
    messages = [record.getMessage() for record in caplog.records]
    assert len([m for m in messages if "can't be reached" in m]) == 1
    assert messages[-1] == "the record writer is back"
    await recorder.close(1)
    await writer.stop()
