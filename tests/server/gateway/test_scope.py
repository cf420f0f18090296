from __future__ import annotations

import json
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.errors import Refusal
from llm_proxy.grants import Scope
from llm_proxy.server.gateway.endpoints import Endpoints
from llm_proxy.server.gateway.request_head import RequestHead
from llm_proxy.server.gateway.scope import ScopeCheck, check_models

SCOPE = Scope(
    apis=("openai",),
    endpoints=("/v1/models", "/v1/files/*"),
    methods=("GET", "POST"),
    networks=("192.0.2.0/24", "2001:db8::/32"),
)


def check(scope: Scope = SCOPE, **changed: Any) -> None:
    request = {
        "api": "openai",
        "endpoint": b"/v1/models",
        "method": b"GET",
        "client_ip": "192.0.2.1",
    }
    ScopeCheck(scope).check(**{**request, **changed})


def refused(scope: Scope = SCOPE, **changed: Any) -> Refusal:
    with pytest.raises(Refusal) as caught:
        check(scope, **changed)
    assert caught.value.status_code == 403
    return caught.value


def test_what_is_within_the_scope_passes() -> None:
    check()
    check(endpoint=b"/v1/files/a", method=b"POST", client_ip="2001:db8::1")
    check(client_ip="::ffff:192.0.2.9")


@pytest.mark.parametrize(
    ("changed", "rule", "value"),
    [
        ({"api": "anthropic"}, "apis", "anthropic"),
        ({"endpoint": b"/v1/chat/completions"}, "endpoints", "/v1/chat/completions"),
        ({"endpoint": b"/v1/filesystem"}, "endpoints", "/v1/filesystem"),
        ({"method": b"DELETE"}, "methods", "DELETE"),
        ({"method": b"get"}, "methods", "get"),
    ],
)
def test_what_is_beyond_it_names_the_rule(changed: dict[str, Any], rule: str, value: str) -> None:
    refusal = refused(**changed)
    assert refusal.code == "insufficient_scope"
    assert refusal.details == {
        "rule": rule,
        "value": value,
        "allowed": list(getattr(SCOPE, rule)),
    }
    assert value in refusal.message


def test_a_long_value_is_cut() -> None:
    assert refused(endpoint=b"/" + b"x" * 8000).details["value"] == "/" + "x" * 199


@pytest.mark.parametrize("client_ip", ["192.0.3.1", "::ffff:192.0.3.1", "2001:db9::", "unix", ""])
def test_strangers_are_refused_and_not_told_who_is_none(client_ip: str) -> None:
    refusal = refused(client_ip=client_ip, api="anthropic")
    assert refusal.code == "client_not_allowed"
    assert refusal.details == {"rule": "networks", "value": client_ip}
    assert "192.0.2" not in refusal.message


def test_many_clients_are_told_apart() -> None:
    scope = ScopeCheck(SCOPE)
    for _ in range(2):
        for number in range(40):
            scope.check("openai", b"/v1/models", b"GET", f"192.0.2.{number}")
            with pytest.raises(Refusal):
                scope.check("openai", b"/v1/models", b"GET", f"192.0.3.{number}")


def test_clients_of_a_unix_socket_can_be_allowed() -> None:
    scope = Scope(networks=("unix",))
    check(scope, client_ip="unix")
    assert refused(scope).code == "client_not_allowed"
    assert "a Unix socket" in refused(client_ip="unix").message


def test_what_is_not_listed_is_not_narrowed() -> None:
    scope = Scope(methods=("GET",))
    check(scope, api="any", endpoint=b"/any", client_ip="unix")
    assert refused(scope, method=b"POST").details["rule"] == "methods"


NAMES = ("a", "b")
PATTERNS = ("/v1", "/v1/*", "/v1/x", "/*")
NETWORKS = ("10.0.0.0/8", "10.1.0.0/16", "::/0")


def some(values: tuple[str, ...]) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(st.sampled_from(values), unique=True).map(tuple)


@given(
    scope=st.builds(
        Scope,
        apis=some(NAMES),
        endpoints=some(PATTERNS),
        methods=some(("GET", "POST")),
        networks=some(NETWORKS),
    ),
    api=st.sampled_from(NAMES),
    endpoint=st.sampled_from(("/v1", "/v1/", "/v1/x", "/v1/x/y", "/v2")),
    method=st.sampled_from(("GET", "POST")),
    client_ip=st.sampled_from(("10.0.0.1", "10.1.0.1", "11.0.0.1", "::1")),
)
def test_a_request_passes_when_every_list_allows_it(
    scope: Scope, api: str, endpoint: str, method: str, client_ip: str
) -> None:
    address = ip_address(client_ip)
    is_within = (
        (not scope.apis or api in scope.apis)
        and (not scope.endpoints or Endpoints(scope.endpoints).allow(endpoint.encode()))
        and (not scope.methods or method in scope.methods)
        and (not scope.networks or any(address in ip_network(name) for name in scope.networks))
    )
    try:
        check(
            scope, api=api, endpoint=endpoint.encode(), method=method.encode(), client_ip=client_ip
        )
    except Refusal:
        assert not is_within
    else:
        assert is_within


def head(**named: bytes) -> RequestHead:
    """Only what the check looks at."""
    made = RequestHead.__new__(RequestHead)
    made.target = b"/v1/chat/completions"
    made.named = {name.replace("_", "-").encode(): value for name, value in named.items()}
    made.offers_websocket = False
    return made


@pytest.mark.parametrize("model", ["gpt-4", "gpt-4o"])
def test_a_model_of_the_scope_passes(model: str) -> None:
    check_models(head(), json.dumps({"model": model}).encode(), ("gpt-4*",))
    check_models(head(), b"", ("gpt-4*",))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"model": "o3"}', "'o3'; allowed here: gpt-4*."),
        (b'{"model": "gpt-4", "Model": "o3"}', "'o3'"),
        (b'{"model": null}', "null"),
        (b"model=gpt-4", "not valid JSON"),
    ],
)
def test_another_model_or_a_hidden_one_is_beyond_the_scope(body: bytes, said: str) -> None:
    with pytest.raises(Refusal, match="narrowed to some models") as caught:
        check_models(head(), body, ("gpt-4*",))
    assert said in caught.value.message
    assert caught.value.code == "insufficient_scope"
    assert caught.value.details == {"rule": "models", "allowed": ["gpt-4*"]}


def test_a_compressed_body_hides_its_model() -> None:
    with pytest.raises(Refusal, match="without Content-Encoding"):
        check_models(head(content_encoding=b"gzip"), b"{}", ("gpt-4*",))
