from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from llm_proxy.events.record import NO_PARTS
from llm_proxy.server.gateway.capture import PART_BYTES, Capture

if TYPE_CHECKING:
    from tests.server.gateway.conftest import Gate

pytestmark = pytest.mark.anyio


async def test_short_body_is_the_rest(gate: Gate) -> None:
    capture = Capture(gate.records, "gzip", is_stream=True)
    capture.add(b"a")
    capture.add(b"b")
    assert (capture.rest(), capture.number) == (b"ab", NO_PARTS)
    assert not gate.records.parts


async def test_long_body_goes_out_in_parts(gate: Gate) -> None:
    capture = Capture(gate.records, "gzip", is_stream=True)
    capture.add(b"a" * (PART_BYTES - 1))
    assert not gate.records.parts
    capture.add(b"bc")
    capture.add(b"d")
    assert gate.records.parts == [(capture.number, b"a" * (PART_BYTES - 1) + b"bc", "gzip", True)]
    assert capture.rest() == b"d"
    capture.hand_over()
    capture.hand_over()
    assert [body for _, body, *_ in gate.records.parts[1:]] == [b"d"]
    assert {number for number, *_ in gate.records.parts} == {capture.number}
    assert capture.rest() == b""
