from __future__ import annotations

import hashlib
import json
import uuid

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.audit import (
    FIRST_HASH,
    LONGEST_TEXT,
    AuditEntry,
    AuditRecord,
    Head,
    clean,
    decode_record,
    encode_record,
    hash_of,
    head_of,
    new_id,
    seal,
)

AT = "2030-01-02T03:04:05.678901Z"


NOTHING = Head()


def sealed(after: Head = NOTHING, **fields: object) -> AuditRecord:
    values = {"action": "token.create", "actor": "system", "outcome": "success", **fields}
    return seal(AuditEntry(**values), after, chain="one", timestamp=AT)  # type: ignore[arg-type]


def test_first_record_follows_nothing_and_the_next_one_it() -> None:
    first = sealed()
    second = sealed(head_of(first))
    assert (first.sequence, first.previous_hash) == (1, FIRST_HASH)
    assert (second.sequence, second.previous_hash) == (2, first.hash)


def test_hash_is_that_of_the_line_with_an_empty_hash() -> None:
    record = sealed(details={"b": 1, "a": ["x"]}, client_ip="192.0.2.1")
    document = json.loads(encode_record(record))
    document["hash"] = ""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    assert hashlib.sha256(text.encode()).hexdigest() == record.hash == hash_of(record)


def test_line_leaves_out_what_is_empty() -> None:
    assert b"null" not in encode_record(sealed())
    assert b"details" not in encode_record(sealed())


@given(st.builds(AuditEntry, details=st.dictionaries(st.text(), st.integers(-9, 9))))
def test_any_entry_survives_its_line(entry: AuditEntry) -> None:
    record = seal(entry, Head(), chain="one", timestamp=AT)
    line = encode_record(record)
    assert b"\n" not in line
    assert decode_record(line) == record
    assert encode_record(decode_record(line)) == line
    assert hash_of(decode_record(line)) == record.hash


@pytest.mark.parametrize("line", [b"", b"{}", b"[]", b"nonsense", b"\xff", b"[" * 100_000])
def test_what_is_no_record_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError):
        decode_record(line)


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (None, None),
        ("curl/8", "curl/8"),
        ("a\0b\nc\x1b", "a�b�c�"),
        ("\ud800", "�"),
        ("é", "é"),
        ("x" * LONGEST_TEXT, "x" * LONGEST_TEXT),
        ("x" * 100_000, "x" * (LONGEST_TEXT - 1) + "…"),
    ],
)
def test_texts_of_strangers_are_cleaned_and_cut(sent: str | None, kept: str | None) -> None:
    assert clean(sent) == kept
    assert sealed(user_agent=sent).user_agent == kept


def test_ids_are_uuids_of_version_7_in_order() -> None:
    ids = [uuid.UUID(new_id(n)) for n in range(100)]
    assert {(one.version, one.variant) for one in ids} == {(7, uuid.RFC_4122)}
    assert len(set(ids)) == 100
    assert ids == sorted(ids)


def test_records_are_immutable() -> None:
    with pytest.raises(AttributeError):
        sealed().action = "other"  # type: ignore[misc]
    assert msgspec.structs.asdict(sealed())["chain"] == "one"
