"""OpenAI's `POST /v1/embeddings`: unit vectors that depend on the text alone."""

from __future__ import annotations

import base64
import hashlib
import math
import struct
from array import array
from typing import Literal

import msgspec

from llm_proxy.benchmark.mock_answer import Answer, Refused, decode_body
from llm_proxy.benchmark.mock_faults import Faults
from llm_proxy.benchmark.mock_prompts import check_model
from llm_proxy.benchmark.mock_request import Request
from llm_proxy.benchmark.mock_text import count_tokens

_DIMENSIONS = 1536
_MOST_DIMENSIONS = 4096
_MOST_INPUTS = 2048

Input = str | list[str | int | list[int]]


class EmbeddingsRequest(msgspec.Struct):
    model: str
    input: Input
    dimensions: int | None = None
    encoding_format: Literal["float", "base64"] | None = None


_decoder = msgspec.json.Decoder(EmbeddingsRequest)


def embed(request: Request, faults: Faults) -> Answer:
    asked = decode_body(_decoder, request)
    check_model(asked.model)
    dimensions = _DIMENSIONS if asked.dimensions is None else asked.dimensions
    if not 1 <= dimensions <= _MOST_DIMENSIONS:
        rule = f"from 1 to {_MOST_DIMENSIONS}"
        raise Refused(400, f"dimensions must be {rule}, not {dimensions}.", param="dimensions")
    inputs = _inputs(asked.input)
    vectors = (_vector(text, dimensions) for text in inputs)
    as_base64 = asked.encoding_format == "base64"
    data = [
        {
            "object": "embedding",
            "index": index,
            "embedding": _as_base64(vector) if as_base64 else vector,
        }
        for index, vector in enumerate(vectors)
    ]
    tokens = sum(map(count_tokens, inputs))
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    answer = {"object": "list", "data": data, "model": asked.model, "usage": usage}
    return Answer(body=msgspec.json.encode(answer))


def _inputs(given: Input) -> list[str]:
    """A text, texts, token numbers or lists of them; numbers become words."""
    if isinstance(given, str):
        return [given]
    if not 1 <= len(given) <= _MOST_INPUTS:
        rule = f"1 to {_MOST_INPUTS} inputs"
        raise Refused(400, f"input must have {rule}, not {len(given)}.", param="input")
    if all(isinstance(item, int) for item in given):
        return [" ".join(map(str, given))]
    if any(isinstance(item, int) for item in given):
        raise Refused(400, "input must not mix token numbers with texts.", param="input")
    return [item if isinstance(item, str) else _words(item) for item in given]


def _words(item: int | list[int]) -> str:
    return " ".join(map(str, item)) if isinstance(item, list) else str(item)


def _vector(text: str, dimensions: int) -> list[float]:
    """32-bit floats, so that both encodings say the same."""
    digest = hashlib.shake_256(text.encode()).digest(2 * dimensions)
    numbers = struct.unpack(f"<{dimensions}h", digest)
    length = math.sqrt(sum(number * number for number in numbers)) or 1.0
    return array("f", [number / length for number in numbers]).tolist()


def _as_base64(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
