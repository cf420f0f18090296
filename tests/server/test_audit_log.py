from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llm_proxy.audit import AuditEntry, AuditRecord, decode_record, encode_record, head_of
from llm_proxy.audit_chain import Verdict, verify_files
from llm_proxy.errors import ConfigError, Refusal, StoreUnavailable
from llm_proxy.server.audit_file import AuditFile
from llm_proxy.server.audit_log import AuditLog
from llm_proxy.server.auditor import Auditor
from llm_proxy.store.audit import append_entries, chain_state, records_after
from llm_proxy.store.database import Store
from tests.server.audit_records import ENTRY, make_records

pytestmark = pytest.mark.anyio

NOW = datetime(2030, 1, 2, 3, 4, 5, 678901, UTC)
DAY_S = 86400.0


class Bench:
    """A store and a file, and audit logs that are opened on them one after the other."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(folder / "llm-proxy.db", cipher=None)
        self.store.open(migrate=True)
        self.path = folder / "audit.jsonl"
        self.now = NOW
        self.logs: list[AuditLog] = []

    async def open(self, *, has_file: bool = True, **options: Any) -> AuditLog:
        file = AuditFile(self.path, chain="one", max_bytes=1 << 20, max_backups=2)
        log = AuditLog(
            self.store,
            chain="one",
            file=file if has_file else None,
            **{"retention_s": DAY_S, "now": lambda: self.now, **options},
        )
        self.logs.append(log)
        await log.open()
        return log

    @property
    def lines(self) -> list[AuditRecord]:
        return [decode_record(line) for line in self.path.read_bytes().splitlines()]

    @property
    def stored(self) -> list[AuditRecord]:
        return records_after(self.store, "one", 0)

    def hinder(self) -> None:
        """Nobody can write the file: its place is taken."""
        self.path.unlink(missing_ok=True)
        self.path.mkdir()

    def help(self) -> None:
        self.path.rmdir()


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    for log in bench.logs:
        await log.close()
    bench.store.close()


async def faults(log: AuditLog) -> list[str]:
    return [verdict.fault.kind for verdict in await log.verify() if verdict.fault is not None]


async def test_what_is_appended_is_in_database_and_file(bench: Bench) -> None:
    log = await bench.open()
    await log.append(ENTRY, ENTRY)
    assert bench.lines == bench.stored
    assert len(bench.lines) == 2
    verdicts: list[Verdict] = await log.verify()
    assert [verdict.records for verdict in verdicts] == [2, 2]
    assert all(verdict.is_sound for verdict in verdicts)


async def test_many_at_once_are_one_sound_chain(bench: Bench) -> None:
    log = await bench.open()
    await asyncio.gather(*(log.append(ENTRY) for _ in range(200)))
    assert len(bench.lines) == 200
    assert await faults(log) == []


async def test_what_is_written_in_a_transaction_is_in_the_file_after_a_flush(bench: Bench) -> None:
    log = await bench.open()

    def change(store: Store) -> None:
        with store.writing():
            log.write(store, ENTRY)

    await bench.store.run(change)
    await log.flush()
    assert len(bench.lines) == 1


async def test_chain_goes_on_over_restarts(bench: Bench) -> None:
    for _ in range(3):
        log = await bench.open()
        await log.append(ENTRY)
        await log.close()
    assert [record.sequence for record in bench.lines] == [1, 2, 3]
    assert await faults(await bench.open()) == []


async def test_crash_before_the_file_was_written_is_made_good_and_told(bench: Bench) -> None:
    log = await bench.open()
    await log.append(ENTRY)
    await log.close()
    append_entries(bench.store, "one", [ENTRY, ENTRY], at=NOW)
    log = await bench.open()
    assert [record.action for record in bench.lines][-3:] == ["token.create"] * 2 + ["audit.repair"]
    assert "ended with the record 1, but 3 was written" in (bench.lines[-1].reason or "")
    assert await faults(log) == []


async def test_torn_line_is_written_anew_and_told(bench: Bench) -> None:
    log = await bench.open()
    await log.append(ENTRY, ENTRY)
    await log.close()
    bench.path.write_bytes(bench.path.read_bytes()[:-30])
    log = await bench.open()
    assert bench.lines == bench.stored
    assert {record.action for record in bench.lines[2:]} == {"audit.repair"}
    assert await faults(log) == []


async def test_what_commands_wrote_is_nothing_to_tell(bench: Bench) -> None:
    log = await bench.open()
    await log.append(ENTRY)
    await log.close()
    append_entries(bench.store, "one", [_by("cli")], at=NOW)
    await bench.open()
    assert [record.actor for record in bench.lines] == ["system", "cli"]


def _by(actor: str) -> AuditEntry:
    return msgspec.structs.replace(ENTRY, actor=actor)


async def test_cut_end_is_told_and_written_anew(bench: Bench) -> None:
    log = await bench.open()
    await log.append(ENTRY, ENTRY, ENTRY)
    await log.close()
    bench.path.write_bytes(encode_record(bench.lines[0]) + b"\n")
    await bench.open()
    assert [record.action for record in bench.lines][1:] == ["token.create"] * 2 + ["audit.repair"]


async def test_records_that_are_gone_everywhere_are_missed(bench: Bench) -> None:
    log = await bench.open(keeps_in_database=False)
    await log.append(ENTRY, ENTRY, ENTRY)
    await log.clean_up()
    assert bench.stored == []
    await log.close()
    bench.path.write_bytes(encode_record(bench.lines[0]) + b"\n")
    log = await bench.open(keeps_in_database=False)
    assert "what is between is gone" in (bench.lines[-1].reason or "")
    assert await faults(log) == ["removed"]


async def test_cut_end_of_a_running_log_is_found(bench: Bench) -> None:
    log = await bench.open()
    await log.append(ENTRY, ENTRY)
    with bench.path.open("r+b") as file:
        file.truncate(len(encode_record(bench.lines[0])) + 1)
    assert await faults(log) == ["truncated"]


async def test_changed_file_is_found(bench: Bench) -> None:
    log = await bench.open()
    await log.append(ENTRY, ENTRY)
    bench.path.write_bytes(bench.path.read_bytes().replace(b"success", b"failure", 1))
    assert await faults(log) == ["changed"]


async def test_changed_database_is_found(bench: Bench) -> None:
    log = await bench.open()
    await log.append(ENTRY, ENTRY)
    with bench.store.writing() as database:
        database.sql("UPDATE audit_records SET outcome = 'failure' WHERE sequence = 1")
    assert await faults(log) == ["changed"]


async def test_database_from_a_backup_gets_what_the_file_has(bench: Bench) -> None:
    log = await bench.open()
    await log.append(ENTRY)
    await log.append(ENTRY, ENTRY)
    await log.close()
    with bench.store.writing() as database:
        first = bench.stored[0]
        database.sql("DELETE FROM audit_records WHERE sequence > 1")
        database.sql("UPDATE audit_chains SET sequence = 1, hash = ?", (first.hash,))
    log = await bench.open()
    assert [record.action for record in bench.stored] == ["token.create"] * 3 + ["audit.restore"]
    assert await faults(log) == []


async def test_new_database_goes_on_from_the_file(bench: Bench, tmp_path: Path) -> None:
    log = await bench.open()
    await log.append(ENTRY, ENTRY)
    await log.close()
    (tmp_path / "new").mkdir()
    fresh = Bench(tmp_path / "new")
    fresh.path = bench.path
    log = await fresh.open()
    await log.append(ENTRY)
    assert [record.sequence for record in fresh.stored] == [1, 2, 3, 4]
    assert await faults(log) == []
    await log.close()
    fresh.store.close()


async def test_file_that_contradicts_the_database_is_set_aside(bench: Bench) -> None:
    log = await bench.open()
    await log.append(ENTRY, ENTRY)
    await log.close()
    forged = make_records(2)
    bench.path.write_bytes(b"".join(encode_record(record) + b"\n" for record in forged))
    await bench.open()
    kept = bench.path.with_name("audit.jsonl.aside1").read_bytes()
    assert kept == b"".join(encode_record(record) + b"\n" for record in forged)
    assert "isn't the database's" in (bench.stored[-1].reason or "")


async def test_forged_records_are_not_taken_from_the_file(bench: Bench) -> None:
    log = await bench.open()
    await log.append(ENTRY)
    await log.close()
    first = bench.lines[0]
    second, third = make_records(2, head=head_of(first))
    forged = msgspec.structs.replace(second, outcome="denied")
    lines = (first, forged, third)
    bench.path.write_bytes(b"".join(encode_record(record) + b"\n" for record in lines))
    log = await bench.open()
    assert [record.action for record in bench.stored] == ["token.create", "audit.repair"]
    assert await faults(log) == []


async def test_looking_after_it_brings_in_what_commands_wrote(bench: Bench) -> None:
    log = await bench.open()
    append_entries(bench.store, "one", [_by("cli")], at=NOW)
    looking = asyncio.create_task(log.run())
    async with asyncio.timeout(30):
        while not bench.lines:
            await asyncio.sleep(0.01)
    looking.cancel()
    await asyncio.gather(looking, return_exceptions=True)


async def test_without_a_file_the_database_has_everything(bench: Bench) -> None:
    log = await bench.open(has_file=False)
    await log.append(ENTRY)
    assert not bench.path.exists()
    assert len(bench.stored) == 1
    assert await faults(log) == []
    await log.require()


async def test_with_the_file_alone_the_database_is_emptied(bench: Bench) -> None:
    log = await bench.open(keeps_in_database=False)
    await log.append(ENTRY, ENTRY)
    await log.clean_up()
    assert bench.stored == []
    await log.append(ENTRY)
    assert [record.sequence for record in bench.lines] == [1, 2, 3]
    assert await faults(log) == []


async def test_old_records_leave_the_database_of_dead_servers_too(bench: Bench) -> None:
    log = await bench.open()
    await log.append(ENTRY)
    append_entries(bench.store, "dead", [ENTRY], at=NOW)
    bench.now += timedelta(days=2)
    await log.append(ENTRY)
    await log.clean_up()
    assert [record.sequence for record in bench.stored] == [2]
    assert records_after(bench.store, "dead", 0) == []
    assert await faults(log) == []


async def test_file_that_can_not_be_written_stops_changes_and_catches_up(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    log = await bench.open()
    await log.append(ENTRY)
    first = bench.path.read_bytes()
    bench.hinder()
    await log.append(ENTRY)  # what happened is recorded in the database
    assert log.problem is not None
    with pytest.raises(Refusal) as refused:
        await log.require()
    assert (refused.value.code, refused.value.status_code) == ("audit_unavailable", 503)
    assert len([r for r in caplog.records if r.levelno == logging.ERROR]) == 1
    bench.help()
    bench.path.write_bytes(first)
    await log.require()
    assert log.problem is None
    assert len(bench.lines) == 2
    assert await faults(log) == []


async def test_a_start_on_a_file_that_can_not_be_used_is_refused(bench: Bench) -> None:
    bench.hinder()
    with pytest.raises(ConfigError, match=r"AUDIT_LOG_FILE"):
        await bench.open()


async def test_store_that_is_gone_is_an_error_of_its_own(bench: Bench) -> None:
    log = await bench.open()
    bench.store.close()
    with pytest.raises(StoreUnavailable):
        await log.append(ENTRY)
    assert not await log.append_if_possible(ENTRY)
    await log.flush()
    assert log.problem is None
    assert log.is_store_lost


@pytest.mark.parametrize("has_file", [True, False])
@pytest.mark.parametrize("table", ["audit_records", "audit_chains"])
async def test_tables_that_can_not_be_read_are_noticed_without_a_change(
    bench: Bench, caplog: pytest.LogCaptureFixture, has_file: bool, table: str
) -> None:
    log = await bench.open(has_file=has_file)
    auditor = Auditor(log, summary_every_s=60.0)
    await auditor.append(ENTRY)
    rename(bench.store, table, "elsewhere")
    async with looking_after(log):
        while auditor.status == "ok":
            await asyncio.sleep(0.01)
    assert auditor.status == "its tables in the database can't be used"
    await log.require()  # the transaction of a change says so itself
    rename(bench.store, "elsewhere", table)
    async with looking_after(log):
        while auditor.status != "ok":
            await asyncio.sleep(0.01)
    told = [record.getMessage() for record in caplog.records if "can't be used" in record.message]
    assert len(told) == 1


def rename(store: Store, old: str, new: str) -> None:
    with store.writing() as database:
        database.sql(f"ALTER TABLE {old} RENAME TO {new}")


@contextlib.asynccontextmanager
async def looking_after(log: AuditLog) -> AsyncIterator[None]:
    running = asyncio.create_task(log.run())
    try:
        async with asyncio.timeout(30):
            yield
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_looking_after_it_mends_the_file(bench: Bench) -> None:
    log = await bench.open()
    await log.append(ENTRY)
    bench.hinder()
    await log.append(ENTRY)
    bench.help()
    async with looking_after(log):
        while log.problem is not None:
            await asyncio.sleep(0.01)
    assert bench.lines[-1].sequence == 2


async def test_kept_head_is_that_of_the_chain(bench: Bench) -> None:
    log = await bench.open()
    await log.append(ENTRY)
    assert chain_state(bench.store, "one").head.hash == bench.lines[0].hash
    assert verify_files([bench.path]).head_hash == bench.lines[0].hash


class StuckFile(AuditFile):
    """On a disk that hangs."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, chain="one", max_bytes=1 << 20, max_backups=2)
        self.may_go_on = threading.Event()

    def append(self, records: Sequence[AuditRecord]) -> None:
        self.may_go_on.wait(10)
        super().append(records)


async def test_disk_that_hangs_holds_up_nobody_for_long(bench: Bench) -> None:
    file = StuckFile(bench.path)
    log = AuditLog(bench.store, chain="one", file=file, retention_s=DAY_S, patience_s=0.05)
    bench.logs.append(log)
    await log.open()
    await log.append(ENTRY)
    assert log.problem is not None
    assert "longer than 0.05 s" in log.problem
    with pytest.raises(Refusal):
        await log.require()
    file.may_go_on.set()
    async with asyncio.timeout(30):
        while log.problem is not None:
            await asyncio.sleep(0.01)
    await log.require()
    assert len(bench.lines) == 1
