from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llm_proxy.audit import AuditEntry, AuditRecord, Head, encode_record, head_of, seal
from llm_proxy.audit_chain import ChainCheck, Fault, Verdict, verify_files

NOTHING = Head()


def make_chain(count: int, *, chain: str = "one", head: Head = NOTHING) -> list[AuditRecord]:
    records = []
    for number in range(count):
        entry = AuditEntry(
            action="token.create", actor="system", outcome="success", details={"number": number}
        )
        record = seal(entry, head, chain=chain, timestamp="2030-01-02T03:04:05.678901Z")
        records.append(record)
        head = head_of(record)
    return records


def fault_of(records: list[AuditRecord], *, head: Head | None = None) -> Fault | None:
    check = ChainCheck("here", before=Head())
    for record in records:
        if not check.take(record, "here"):
            break
    return check.verdict(head).fault


def kind_of(records: list[AuditRecord], *, head: Head | None = None) -> str | None:
    fault = fault_of(records, head=head)
    return None if fault is None else fault.kind


def write(path: Path, records: list[AuditRecord]) -> Path:
    path.write_bytes(b"".join(encode_record(record) + b"\n" for record in records))
    return path


CHAIN = make_chain(5)


def test_sound_chain_is_told_with_its_end() -> None:
    check = ChainCheck("here")
    assert all(check.take(record, "here") for record in CHAIN)
    assert check.verdict(head_of(CHAIN[-1])) == Verdict(
        place="here", chain="one", records=5, first=1, last=5, head_hash=CHAIN[-1].hash
    )


def test_a_changed_record_is_found() -> None:
    changed = msgspec.structs.replace(CHAIN[2], outcome="denied")
    fault = fault_of([*CHAIN[:2], changed, *CHAIN[3:]])
    assert fault is not None
    assert (fault.kind, fault.sequence) == ("changed", 3)


def test_a_record_that_was_replaced_with_its_hash_is_found() -> None:
    forged = make_chain(1, head=head_of(CHAIN[1]))[0]
    fault = fault_of([*CHAIN[:2], forged, *CHAIN[3:]])
    assert fault is not None
    assert (fault.kind, fault.sequence) == ("changed", 4)


@pytest.mark.parametrize(
    ("records", "head", "kind"),
    [
        ([CHAIN[0], *CHAIN[2:]], None, "removed"),
        (CHAIN[1:], None, "removed"),
        ([CHAIN[0], CHAIN[2], CHAIN[1]], None, "removed"),
        ([*CHAIN[:3], CHAIN[1]], None, "reordered"),
        ([*CHAIN[:3], CHAIN[2]], None, "reordered"),
        (CHAIN[:4], head_of(CHAIN[4]), "truncated"),
        ([], head_of(CHAIN[4]), "truncated"),
        (CHAIN, head_of(make_chain(5)[-1]), "changed"),
        ([*CHAIN[:2], *make_chain(3, chain="two")], None, "mixed"),
        (CHAIN, head_of(CHAIN[-1]), None),
        ([], None, None),
    ],
)
def test_each_kind_of_tampering_has_a_name(
    records: list[AuditRecord], head: Head | None, kind: str | None
) -> None:
    assert kind_of(records, head=head) == kind


def test_nothing_is_taken_after_a_fault_counts() -> None:
    check = ChainCheck("here", before=Head())
    assert not check.take(CHAIN[1], "first")
    verdict = check.verdict(head_of(CHAIN[-1]))
    assert verdict.fault is not None
    assert verdict.fault.place == "first"
    assert not verdict.is_sound


def test_rotated_files_are_one_chain_in_whatever_order(tmp_path: Path) -> None:
    newest = write(tmp_path / "audit.jsonl", CHAIN[3:])
    middle = write(tmp_path / "audit.jsonl.1", CHAIN[1:3])
    verdict = verify_files([newest, middle], head=head_of(CHAIN[-1]))
    assert verdict.is_sound
    assert (verdict.first, verdict.last, verdict.records) == (2, 5, 4)


def test_a_hash_that_was_kept_must_be_found(tmp_path: Path) -> None:
    path = write(tmp_path / "audit.jsonl", CHAIN[:4])
    assert verify_files([path], kept_hash=CHAIN[1].hash).is_sound
    fault = verify_files([path], kept_hash=CHAIN[4].hash).fault
    assert fault is not None
    assert (fault.kind, fault.place) == ("truncated", str(path))


def test_missing_file_in_between_is_found_with_its_place(tmp_path: Path) -> None:
    newest = write(tmp_path / "audit.jsonl", CHAIN[3:])
    oldest = write(tmp_path / "audit.jsonl.2", CHAIN[:1])
    fault = verify_files([newest, oldest]).fault
    assert fault is not None
    assert (fault.kind, fault.place) == ("removed", f"{newest}:1")
    assert "2 record(s)" in fault.message


def test_line_that_was_cut_is_found(tmp_path: Path) -> None:
    path = write(tmp_path / "audit.jsonl", CHAIN)
    path.write_bytes(path.read_bytes()[:-20])
    fault = verify_files([path]).fault
    assert fault is not None
    assert (fault.kind, fault.place) == ("unreadable", f"{path}:5, which was cut")


def test_no_file_is_no_chain() -> None:
    assert verify_files([]) == Verdict(place="no file")


@given(st.data())
def test_any_byte_that_is_changed_is_found(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = write(tmp_path_factory.mktemp("audit") / "audit.jsonl", CHAIN)
    text = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(text) - 1))
    text[place] = data.draw(st.integers(0, 255).filter(lambda byte: byte != text[place]))
    path.write_bytes(text)
    assert not verify_files([path], head=head_of(CHAIN[-1])).is_sound


@given(st.binary(max_size=200))
@example(b"\n")
@example(b"{}\n")
def test_no_file_makes_the_check_fail_otherwise(
    tmp_path_factory: pytest.TempPathFactory, text: bytes
) -> None:
    path = tmp_path_factory.mktemp("audit") / "audit.jsonl"
    path.write_bytes(text)
    assert verify_files([path]).is_sound == (not text)
