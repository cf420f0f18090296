from __future__ import annotations

from llm_proxy.audit import AuditEntry
from llm_proxy.server.audit_counts import MOST_KINDS, MOST_OF_ADDRESS, AuditCounts, Budget


def counts_with(*, burst: int = 100, refill_s: float = 30.0) -> AuditCounts:
    return AuditCounts("proxy.refused", "system", Budget(burst=burst, refill_s=refill_s))


def totals(entries: list[AuditEntry]) -> int:
    return sum(entry.details["count"] for entry in entries)


def test_events_alike_are_one_record_with_their_count() -> None:
    counts = counts_with()
    for _ in range(3):
        counts.add(("invalid_token", "", "", "192.0.2.1"))
    counts.add(("token_expired", "t", "p", "192.0.2.1"), 2)
    first, second = counts.take(0.0)
    assert (first.reason, first.client_ip, first.details) == (
        "invalid_token",
        "192.0.2.1",
        {"count": 3},
    )
    assert (second.token_id, second.project_id, second.outcome) == ("t", "p", "denied")
    assert counts.take(1.0) == []


def test_what_there_is_no_room_for_is_summed_up_with_nothing_lost() -> None:
    counts = counts_with(burst=3)
    for number in range(10):
        counts.add(("invalid_token", "", "", str(number)), 10 - number)
    counts.add_rest({"missing_token": 5})
    entries = counts.take(0.0)
    assert [entry.client_ip for entry in entries] == ["0", "1", None]
    assert entries[-1].details == {
        "count": 41,
        "reasons": {"missing_token": 5, "invalid_token": 36},
    }
    assert entries[-1].reason == "several"
    assert totals(entries) == 60


def test_a_flood_of_strangers_gives_few_records_and_holds_little() -> None:
    counts = counts_with()
    written: list[AuditEntry] = []
    for second in range(3600):
        for number in range(3):
            counts.add(("invalid_token", "", "", f"{second}.{number}"), 10)
        if second % 5 == 0:
            written += counts.take(float(second))
    written += counts.take(10_000.0)
    assert totals(written) == 3600 * 30
    assert len(written) <= 2 * 100 + 3600 / 30


def test_kinds_beyond_the_most_are_counted_by_their_reason() -> None:
    counts = counts_with(burst=10_000)
    for number in range(MOST_KINDS + 7):
        counts.add(("invalid_token", "", "", str(number)))
    entries = counts.take(0.0)
    assert len(entries) == MOST_KINDS + 1
    assert (entries[-1].reason, entries[-1].details["count"]) == ("invalid_token", 7)


def test_without_room_everything_waits() -> None:
    counts = counts_with(burst=1, refill_s=30)
    counts.add(("a", "", "", ""))
    assert len(counts.take(100.0)) == 1
    counts.add(("b", "", "", ""))
    assert counts.take(120.0) == []
    assert [entry.reason for entry in counts.take(131.0)] == ["b"]


def test_what_could_not_be_written_is_told_later() -> None:
    counts = counts_with(burst=2)
    for number in range(4):
        counts.add(("a", "t", "p", str(number)))
    entries = counts.take(1.0)
    counts.put_back(entries)
    again = counts.take(1000.0)
    assert totals(again) == totals(entries) == 4
    assert again[0].token_id == "t"


def test_an_address_gets_few_records_of_its_own_a_minute() -> None:
    counts = counts_with()
    told = [counts.may_tell("192.0.2.1", 60.0) for _ in range(MOST_OF_ADDRESS + 5)]
    assert told == [True] * MOST_OF_ADDRESS + [False] * 5
    assert counts.may_tell("192.0.2.2", 60.0)
    assert counts.may_tell("192.0.2.1", 121.0)


def test_many_addresses_together_get_no_more_than_the_budget() -> None:
    counts = counts_with(burst=20)
    told = [counts.may_tell(str(number), 60.0) for number in range(100)]
    assert told.count(True) == 20
