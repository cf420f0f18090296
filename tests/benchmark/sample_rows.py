"""One request as it is noted, for the tests of what writes requests."""

from __future__ import annotations

from array import array

from llm_proxy.benchmark import samples as s

_ROW: dict[str, int] = {
    "lane": 0,
    "outcome": s.OK,
    "status": 200,
    "due": 15_000_000,
    "late": 1_000,
    "service": 52_345,
    "first_byte": 40_000,
    "first_token": -1,
    "second_token": -1,
    "last_token": -1,
    "tokens": 0,
    "stalls": 0,
    "gap": -1,
    "received": 890,
    "sent": 412,
    "proxy": 1_100,
    "upstream": 30_000,
    "pair": 7,
    "body": 0,
    "digest": 1,
}
STREAM = {"first_token": 200_000, "second_token": 300_000, "tokens": 30, "stalls": 2, "gap": 90_500}


def frame_of(*rows: dict[str, int], process: int = 0) -> s.Frame:
    """Each row says what is different about it."""
    samples = s.new_samples()
    for row in rows:
        for name, value in (_ROW | row).items():
            column: array[int] = getattr(samples, name)
            column.append(value)
    return s.Frame(process=process, at=0, in_flight=0, samples=samples, gaps=s.new_gaps())
