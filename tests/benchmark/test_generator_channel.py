from __future__ import annotations

import pytest

from llm_proxy.benchmark.generator_channel import FRAME, HEADER_BYTES, pack, unpack_header


def test_a_message_says_what_it_is_and_how_long() -> None:
    message = pack(FRAME, b"abc")
    assert unpack_header(message[:HEADER_BYTES]) == (FRAME, 3)
    assert message[HEADER_BYTES:] == b"abc"


def test_an_absurd_length_is_refused() -> None:
    with pytest.raises(ValueError, match="message of"):
        unpack_header(FRAME + b"\xff\xff\xff\xff")
