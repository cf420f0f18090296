from __future__ import annotations

import json
from typing import Any

import pytest

from llm_proxy.benchmark.mock_answer import Refused
from llm_proxy.benchmark.mock_faults import NO_FAULTS
from llm_proxy.benchmark.mock_models import get_model, list_models
from llm_proxy.benchmark.mock_request import Request

VERSION = [(b"anthropic-version", b"2023-06-01")]


def _list(headers: list[tuple[bytes, bytes]]) -> Any:
    return json.loads(list_models(Request("GET", b"/v1/models", headers), NO_FAULTS).body)


def test_models_are_listed_in_the_shape_of_the_api_that_asks() -> None:
    openai, anthropic = _list([]), _list(VERSION)
    assert {model["object"] for model in openai["data"]} == {"model"}
    assert {model["type"] for model in anthropic["data"]} == {"model"}
    assert anthropic["last_id"] == anthropic["data"][-1]["id"]


@pytest.mark.parametrize("headers", [[], VERSION])
def test_any_model_is_there_but_those_there_to_be_missing(
    headers: list[tuple[bytes, bytes]],
) -> None:
    request = Request("GET", b"/v1/models/ft%3Amine", headers)
    assert json.loads(get_model(request, NO_FAULTS).body)["id"] == "ft:mine"
    with pytest.raises(Refused, match="does not exist"):
        get_model(Request("GET", b"/v1/models/no-such-model", headers), NO_FAULTS)
