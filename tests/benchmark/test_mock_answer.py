from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_proxy.benchmark.mock_answer import Refused, decode_body, sse
from llm_proxy.benchmark.mock_request import LARGEST_COLLECTED_BODY, Request


class Asked(msgspec.Struct):
    model: str
    sizes: list[int] = []


_decoder = msgspec.json.Decoder(Asked)


def _request(body: bytes) -> Request:
    request = Request("POST", b"/", [])
    request.collect()
    request.feed(body)
    return request


def test_a_body_of_the_right_shape_is_decoded() -> None:
    asked = decode_body(_decoder, _request(b'{"model": "m", "unknown": 1, "sizes": [1]}'))
    assert asked == Asked(model="m", sizes=[1])


@pytest.mark.parametrize(
    ("body", "message", "param"),
    [
        (b"{}", "missing required field `model` at its top", None),
        (b'{"model": 3}', "got `int` at model", "model"),
        (b'{"model": "m", "sizes": ["a"]}', r"got `str` at sizes\[0\]", "sizes[0]"),
        (b"[]", "Expected `object`, got `array`", None),
    ],
)
def test_a_wrong_shape_names_the_field(body: bytes, message: str, param: str | None) -> None:
    with pytest.raises(Refused, match=message) as raised:
        decode_body(_decoder, _request(body))
    assert (raised.value.status, raised.value.param) == (400, param)


@pytest.mark.parametrize(
    "body", [b"", b"{", b'{"model": "\xff"}', b'{"x": ' + b"[" * 100_000, b'{"model": "\\ud800"}']
)
def test_what_is_not_json_is_refused_with_400(body: bytes) -> None:
    with pytest.raises(Refused, match="could not be parsed as JSON") as raised:
        decode_body(_decoder, _request(body))
    assert raised.value.status == 400


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_no_body_does_anything_but_decode_or_be_refused(body: bytes) -> None:
    try:
        assert decode_body(_decoder, _request(body)).model is not None
    except Refused as refused:
        assert refused.status == 400


def test_a_body_beyond_the_limit_is_413() -> None:
    with pytest.raises(Refused) as raised:
        decode_body(_decoder, _request(bytes(LARGEST_COLLECTED_BODY + 1)))
    assert raised.value.status == 413


def test_server_sent_events_end_in_a_blank_line() -> None:
    assert sse({"a": 1}) == b'data: {"a":1}\n\n'
    assert sse({"a": "\n"}, event="ping") == b'event: ping\ndata: {"a":"\\n"}\n\n'
