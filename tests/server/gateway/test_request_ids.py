from __future__ import annotations

import uuid

import pytest

from llm_proxy.server.gateway.request_ids import MAX_LENGTH, request_id


def test_own_id_is_a_uuid_of_version_7() -> None:
    made = uuid.UUID(request_id(None, 1_700_000_000.123))
    assert made.version == 7
    assert made.variant == uuid.RFC_4122
    assert made.int >> 80 == 1_700_000_000_123


def test_ids_differ_and_sort_by_time() -> None:
    same = {request_id(None, 1.0) for _ in range(10_000)}
    assert len(same) == 10_000
    assert all(uuid.UUID(one).variant == uuid.RFC_4122 for one in same)
    assert max(same) < request_id(None, 1.01)


def test_ids_of_one_millisecond_mostly_sort_too() -> None:
    """All but those on either side of a new draw of random bits."""
    ids = [request_id(None, 1.0) for _ in range(1000)]
    falls = sum(one > other for one, other in zip(ids, ids[1:], strict=False))
    assert falls <= 1


@pytest.mark.parametrize("wanted", [b"req_1", b"A.b-c:d/e+f=g@h", b"x" * MAX_LENGTH])
def test_sane_id_of_the_client_is_taken(wanted: bytes) -> None:
    assert request_id(wanted, 1.0) == wanted.decode()


@pytest.mark.parametrize(
    "wanted", [b"", b"x" * (MAX_LENGTH + 1), b"a b", b"a,b", b'"', b"<", b"\xc3\xa9", b"a\x00"]
)
def test_other_id_is_replaced(wanted: bytes) -> None:
    assert uuid.UUID(request_id(wanted, 1.0)).version == 7
