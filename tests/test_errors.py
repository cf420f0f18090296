from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from llm_proxy.errors import (
    REFUSALS,
    ConfigError,
    LLMProxyError,
    NotAuthorised,
    NotFound,
    Refusal,
    StoreUnavailable,
    StoreUnreachable,
    Unreachable,
)

PROXYING = Path(__file__).parent.parent / "docs" / "proxying.md"


def test_exit_codes_are_those_of_the_contract() -> None:
    codes = {kind: kind("").exit_code for kind in (ConfigError, NotAuthorised, NotFound)}
    assert codes == {ConfigError: 1, NotAuthorised: 3, NotFound: 4}
    assert Unreachable("").exit_code == 5
    assert StoreUnavailable("").exit_code == 1
    assert StoreUnreachable("").exit_code == 5
    assert isinstance(Refusal("not_found", ""), LLMProxyError)


def test_the_envelope_holds_everything_a_client_needs() -> None:
    refusal = Refusal("rate_limited", "Wait.", details={"limit": 3}, headers={"Retry-After": "1"})
    assert refusal.status_code == 429
    assert refusal.headers == {"Retry-After": "1"}
    assert json.loads(refusal.envelope("req-1")) == {
        "type": "error",
        "error": {
            "type": "rate_limit_error",
            "code": "rate_limited",
            "message": "Wait.",
            "details": {"limit": 3},
        },
        "request_id": "req-1",
    }


def test_an_unknown_code_is_a_programming_error() -> None:
    with pytest.raises(KeyError):
        Refusal("no_such_code", "")


@pytest.mark.parametrize("code", sorted(REFUSALS))
def test_every_code_has_a_status_and_a_type_that_sdks_know(code: str) -> None:
    status, kind = REFUSALS[code]
    assert 400 <= status < 600
    assert re.fullmatch(r"[a-z_]+_error|request_too_large", kind)


def test_the_guide_names_no_code_that_does_not_exist() -> None:
    table = PROXYING.read_text().partition("| status | codes |")[2].partition("\n\n")[0]
    named = set(re.findall(r"`([a-z_]+)`", table))
    assert named
    assert named <= set(REFUSALS)
