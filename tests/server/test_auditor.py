from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from llm_proxy.audit import AuditEntry, AuditRecord
from llm_proxy.server.audit_counts import BURST, MOST_OF_ADDRESS
from llm_proxy.server.auditor import Auditor, make_auditor
from llm_proxy.server.channel import RefusalCount, Refused
from llm_proxy.settings import Settings
from llm_proxy.store.audit import records_after
from llm_proxy.store.database import Store

pytestmark = pytest.mark.anyio

DENIED = AuditEntry(
    action="auth.failed",
    actor="management_api",
    outcome="denied",
    reason="invalid_management_token",
    client_ip="192.0.2.1",
)


class Bench:
    def __init__(self, settings: Settings, folder: Path) -> None:
        self.store = Store(folder / "store.db", cipher=None)
        self.store.open(migrate=True)
        settings.home.ensure()
        made = make_auditor(settings, self.store, "one")
        assert made is not None
        self.auditor: Auditor = made

    @property
    def records(self) -> list[AuditRecord]:
        return records_after(self.store, "one", 0)


@pytest.fixture
async def bench(settings: Settings, tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(settings, tmp_path)
    await bench.auditor.open()
    yield bench
    await bench.auditor.close()
    bench.store.close()


def refused(*kinds: tuple[str, str, int], others: dict[str, int] | None = None) -> Refused:
    counts = [RefusalCount(code, "", "", ip, count) for code, ip, count in kinds]
    return Refused(counts, others or {})


async def test_what_workers_refused_becomes_records_with_counts(bench: Bench) -> None:
    bench.auditor.count_refused(refused(("invalid_token", "192.0.2.1", 3)))
    bench.auditor.count_refused(refused(("invalid_token", "192.0.2.1", 4), others={"x": 5}))
    await bench.auditor.summarise()
    told, rest = bench.records
    assert (told.action, told.outcome, told.reason) == ("proxy.refused", "denied", "invalid_token")
    assert (told.client_ip, told.details) == ("192.0.2.1", {"count": 7})
    assert rest.details == {"count": 5, "reasons": {"x": 5}}
    await bench.auditor.summarise()
    assert len(bench.records) == 2


async def test_guesses_at_the_management_token_are_a_few_records_and_a_count(bench: Bench) -> None:
    for _ in range(MOST_OF_ADDRESS + 40):
        await bench.auditor.deny(DENIED)
    assert len(bench.records) == MOST_OF_ADDRESS
    await bench.auditor.summarise()
    summary = bench.records[-1]
    assert (summary.action, summary.client_ip) == ("auth.failed", "192.0.2.1")
    assert summary.details == {"count": 40}


async def test_guesses_from_everywhere_are_held_to_the_budget(bench: Bench) -> None:
    for number in range(BURST + 50):
        stranger = msgspec.structs.replace(DENIED, client_ip=f"192.0.2.{number}")
        await bench.auditor.deny(stranger)
    await bench.auditor.summarise()
    assert len(bench.records) <= BURST + 1


async def test_what_can_not_be_written_is_told_later(bench: Bench, tmp_path: Path) -> None:
    bench.store.close()
    bench.auditor.count_refused(refused(("invalid_token", "192.0.2.1", 3)))
    await bench.auditor.deny(DENIED)
    await bench.auditor.summarise()
    bench.store.open(migrate=False)
    await bench.auditor.summarise()
    assert [record.details for record in bench.records] == [{"count": 3}, {"count": 1}]


async def test_the_server_tells_of_itself(bench: Bench) -> None:
    await bench.auditor.tell("server.start", pid=7)
    await bench.auditor.tell("config.reload", "the file is wrong")
    start, reload = bench.records
    assert (start.outcome, start.actor, start.details) == ("success", "system", {"pid": 7})
    assert (reload.outcome, reload.reason) == ("error", "the file is wrong")


async def test_each_token_that_expired_has_its_record(bench: Bench) -> None:
    await bench.auditor.tell_expired(["t1", "t2"])
    assert [(r.action, r.actor, r.token_id) for r in bench.records] == [
        ("token.expire", "system", "t1"),
        ("token.expire", "system", "t2"),
    ]


async def test_its_end_is_the_last_record(settings: Settings, tmp_path: Path) -> None:
    bench = Bench(settings, tmp_path)
    await bench.auditor.open()
    bench.auditor.count_refused(refused(("invalid_token", "192.0.2.1", 3)))
    running = asyncio.create_task(bench.auditor.run())
    await asyncio.sleep(0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await bench.auditor.close()
    assert [record.action for record in bench.records] == ["proxy.refused", "server.stop"]
    bench.store.close()


async def test_summaries_come_by_themselves(settings: Settings, tmp_path: Path) -> None:
    bench = Bench(settings, tmp_path)
    quick = make_auditor(settings, bench.store, "one", summary_every_s=0.01)
    assert quick is not None
    await quick.open()
    running = asyncio.create_task(quick.run())
    quick.count_refused(refused(("invalid_token", "192.0.2.1", 3)))
    async with asyncio.timeout(30):
        while not bench.records:
            await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await quick.close()
    bench.store.close()


def test_there_may_be_none(settings: Settings, tmp_path: Path) -> None:
    off = msgspec.structs.replace(settings, audit_enabled=False)
    assert make_auditor(off, Store(tmp_path / "store.db", cipher=None), "one") is None


async def test_the_file_may_be_off(settings: Settings, tmp_path: Path) -> None:
    bench = Bench(msgspec.structs.replace(settings, audit_log_file=None), tmp_path)
    await bench.auditor.open()
    await bench.auditor.tell("server.start")
    assert bench.auditor.status == "ok"
    assert not (settings.home.path / "audit.jsonl").exists()
    assert len(bench.records) == 1
    await bench.auditor.close()
    bench.store.close()
