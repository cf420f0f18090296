"""What errors mean."""

from __future__ import annotations

import pytest

from llm_proxy.benchmark.error_hints import error_hint
from llm_proxy.benchmark.samples import CANCELLED, OK, OUTCOMES


@pytest.mark.parametrize(
    "kind", [name for i, name in enumerate(OUTCOMES) if i not in (OK, CANCELLED)]
)
def test_every_kind_of_error_has_a_hint(kind: str) -> None:
    assert error_hint(kind)


@pytest.mark.parametrize("name", ["ok", "200", "301", "cancelled"])
def test_what_is_no_error_has_none(name: str) -> None:
    assert error_hint(name) == ""


def test_codes_have_their_own_or_that_of_their_class() -> None:
    assert "--token" in error_hint("401")
    assert error_hint("418") == error_hint("4xx")
    assert error_hint("599") == error_hint("5xx")
