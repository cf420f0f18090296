from __future__ import annotations

import base64
import json
import math
import struct
from typing import Any

import pytest

from llm_proxy.benchmark.mock_answer import Refused
from llm_proxy.benchmark.mock_embeddings import embed
from llm_proxy.benchmark.mock_faults import NO_FAULTS
from llm_proxy.benchmark.mock_request import Request


def _ask(**fields: Any) -> Any:
    request = Request("POST", b"/v1/embeddings", [])
    request.collect()
    request.feed(json.dumps({"model": "m", "input": "a b", **fields}).encode())
    return json.loads(embed(request, NO_FAULTS).body)


def _vectors(**fields: Any) -> list[list[float]]:
    return [item["embedding"] for item in _ask(**fields)["data"]]


def test_a_vector_has_length_one_and_as_many_dimensions_as_asked() -> None:
    (vector,) = _vectors()
    assert len(vector) == 1536
    assert math.isclose(math.hypot(*vector), 1.0, rel_tol=1e-5)
    assert len(_vectors(dimensions=3)[0]) == 3


def test_the_vector_depends_on_the_text_alone() -> None:
    one, two, again = _vectors(input=["one", "two", "one"], dimensions=8)
    assert one == again != two
    assert _vectors(input="one", dimensions=8, user="me") == [one]


def test_base64_holds_the_same_little_endian_floats() -> None:
    (floats,) = _vectors(dimensions=5)
    (encoded,) = _vectors(dimensions=5, encoding_format="base64")
    assert list(struct.unpack("<5f", base64.b64decode(str(encoded)))) == floats


def test_tokens_are_counted_over_all_inputs() -> None:
    assert _ask(input=["a b", "c"])["usage"] == {"prompt_tokens": 3, "total_tokens": 3}
    assert _ask(input=[1, 2, 3, 4])["usage"]["total_tokens"] == 4


def test_token_numbers_are_one_input_or_a_list_of_them() -> None:
    assert len(_vectors(input=[1, 2], dimensions=2)) == 1
    assert len(_vectors(input=[[1, 2], [3]], dimensions=2)) == 2


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dimensions": 0}, "dimensions must be from 1 to 4096, not 0"),
        ({"dimensions": 5000}, "dimensions must be from 1 to 4096"),
        ({"input": []}, "1 to 2048 inputs, not 0"),
        ({"input": ["a"] * 2049}, "1 to 2048 inputs, not 2049"),
        ({"input": ["a", 1]}, "must not mix"),
        ({"encoding_format": "hex"}, "encoding_format"),
    ],
)
def test_a_bad_field_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(Refused, match=message) as raised:
        _ask(**fields)
    assert raised.value.status == 400


def test_a_number_too_large_for_a_token_is_refused() -> None:
    request = Request("POST", b"/v1/embeddings", [])
    request.collect()
    request.feed(b'{"model":"m","input":[' + b"1" * 5000 + b"]}")
    with pytest.raises(Refused) as raised:
        embed(request, NO_FAULTS)
    assert raised.value.status == 400
