from __future__ import annotations

import pytest

from llm_proxy.chat.question import Api
from llm_proxy.chat.target import Target
from llm_proxy.secrets import Secret


@pytest.mark.parametrize(
    ("base_url", "api", "paths"),
    [
        ("http://p", "openai", ["http://p/v1/x", "http://p/openai/v1/x"]),
        ("http://p/", "anthropic", ["http://p/anthropic/v1/x", "http://p/v1/x"]),
        ("http://p/v1", "openai", ["http://p/v1/x", "http://p/openai/v1/x"]),
        ("http://p/anthropic", "anthropic", ["http://p/anthropic/v1/x"]),
        ("http://p/openai/v1", "openai", ["http://p/openai/v1/x"]),
        (
            "http://p/in/front",
            "openai",
            ["http://p/in/front/v1/x", "http://p/in/front/openai/v1/x"],
        ),
        ("unix:/run/p", "openai", ["http://localhost/v1/x", "http://localhost/openai/v1/x"]),
    ],
)
def test_places_of_a_path_are_tried_likely_ones_first(
    base_url: str, api: Api, paths: list[str]
) -> None:
    assert Target(base_url=base_url, token=Secret("t"), api=api).urls("/x") == paths


def test_socket_is_that_of_a_unix_address() -> None:
    assert Target(base_url="unix:/run/p", token=Secret("t")).socket == "/run/p"
    assert Target(base_url="http://p", token=Secret("t")).socket is None
