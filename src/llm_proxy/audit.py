"""Records of the audit log: what they hold, and how each carries the hash of the one before."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec

Outcome = Literal["success", "failure", "denied", "error"]

FIRST_HASH: Final = "0" * 64  # what the first record of a chain names as the one before
LONGEST_TEXT: Final = 250  # characters; what clients send may be of any length


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What happened, before it has its place in the chain. Never a secret."""

    action: str  # like `token.create`
    actor: str  # management_api, system or cli
    outcome: Outcome
    client_ip: str | None = None
    request_id: str | None = None
    method: str | None = None
    path: str | None = None
    user_agent: str | None = None
    project_id: str | None = None
    token_id: str | None = None
    reason: str | None = None  # of anything but a success: the code of the error
    details: Mapping[str, Any] = {}


class AuditRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    id: str  # UUIDv7
    timestamp: str  # UTC, as the store writes times
    chain: str  # of the server that wrote it
    sequence: int  # in its chain, from 1
    action: str
    actor: str
    outcome: str
    client_ip: str | None = None
    request_id: str | None = None
    method: str | None = None
    path: str | None = None
    user_agent: str | None = None
    project_id: str | None = None
    token_id: str | None = None
    reason: str | None = None
    details: Mapping[str, Any] = {}
    previous_hash: str
    hash: str


class Head(msgspec.Struct, frozen=True):
    """The last record of a chain."""

    sequence: int = 0  # 0: there is none yet
    hash: str = FIRST_HASH


_encoder = msgspec.json.Encoder(order="sorted")  # one text for one record
_decoder = msgspec.json.Decoder(AuditRecord, strict=True)


def seal(entry: AuditEntry, after: Head, *, chain: str, timestamp: str) -> AuditRecord:
    """The entry as the record that follows `after`."""
    texts = {name: clean(getattr(entry, name)) for name in _TEXTS}
    record = AuditRecord(
        id=new_id(after.sequence + 1),
        timestamp=timestamp,
        chain=chain,
        sequence=after.sequence + 1,
        action=entry.action,
        actor=entry.actor,
        outcome=entry.outcome,
        details=dict(entry.details),
        previous_hash=after.hash,
        hash="",
        **texts,
    )
    return msgspec.structs.replace(record, hash=hash_of(record))


_TEXTS: Final = (
    "client_ip",
    "request_id",
    "method",
    "path",
    "user_agent",
    "project_id",
    "token_id",
    "reason",
)


def clean(text: str | None) -> str | None:
    """No control characters, which not every database takes, and no great length."""
    if text is None:
        return None
    shown = "".join(char if char.isprintable() else "�" for char in text[: LONGEST_TEXT + 1])
    return shown if len(shown) <= LONGEST_TEXT else shown[: LONGEST_TEXT - 1] + "…"


def hash_of(record: AuditRecord) -> str:
    """SHA-256 of its line with an empty `hash`."""
    unsealed = msgspec.structs.replace(record, hash="")
    return hashlib.sha256(encode_record(unsealed)).hexdigest()


def encode_record(record: AuditRecord) -> bytes:
    """Its line without the end, always the same bytes: keys in order, nothing that is null."""
    return _encoder.encode(record)


def decode_record(line: bytes) -> AuditRecord:
    """Raises ValueError when it isn't a record's line."""
    try:
        return _decoder.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise ValueError(str(exc)) from exc


def head_of(record: AuditRecord) -> Head:
    return Head(record.sequence, record.hash)


def new_id(counter: int) -> str:
    """A UUIDv7 (RFC 9562), in the order of `counter` within a millisecond (section 6.2)."""
    milliseconds = int(time.time() * 1000)
    random = int.from_bytes(os.urandom(8), "big") >> 2
    number = milliseconds << 80 | 7 << 76 | (counter & 0xFFF) << 64 | 2 << 62 | random
    text = f"{number:032x}"
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))
