"""What was refused is counted for the audit log, in bounded memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from llm_proxy.secrets import new_token
from llm_proxy.server.gateway.refusals import MOST_KINDS, MOST_TOLD, Refusals

if TYPE_CHECKING:
    from tests.server.gateway.conftest import Gate

pytestmark = pytest.mark.anyio


async def test_refusals_are_counted_by_reason_token_and_client(gate: Gate) -> None:
    expired = gate.new_token(expires_at=1.0)
    stranger = new_token().reveal().encode()
    for token in (expired, expired, stranger):
        assert (await gate.ask(gate.request(body=b"{}", token=token))).status == 401
    told, others = gate.gateway.refusals.take()
    assert [(key[0], key[3], count) for key, count in told] == [
        ("token_expired", "127.0.0.1", 2),
        ("invalid_token", "127.0.0.1", 1),
    ]
    assert told[0][0][1:3] != ("", "")
    assert told[1][0][1:3] == ("", "")
    assert others == {}
    assert gate.gateway.refusals.take() == ([], {})


def key(number: int, code: str = "invalid_token") -> tuple[str, str, str, str]:
    return code, "", "", str(number)


def test_the_most_frequent_are_told_and_the_others_summed() -> None:
    refusals = Refusals()
    for number in range(MOST_TOLD + 50):
        for _ in range(2 if number < MOST_TOLD else 1):
            refusals.add(key(number))
    told, others = refusals.take()
    assert len(told) == MOST_TOLD
    assert {count for _, count in told} == {2}
    assert others == {"invalid_token": 50}


def test_a_flood_of_strangers_holds_little() -> None:
    refusals = Refusals()
    for number in range(MOST_KINDS + 500):
        refusals.add(key(number, "missing_token" if number >= MOST_KINDS else "invalid_token"))
    told, others = refusals.take()
    assert len(told) == MOST_TOLD
    assert others == {"invalid_token": MOST_KINDS - MOST_TOLD, "missing_token": 500}
