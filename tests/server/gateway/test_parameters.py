from __future__ import annotations

import codecs
import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.errors import Refusal
from llm_proxy.server.gateway.parameters import check_parameters

if TYPE_CHECKING:
    from tests.server.gateway.conftest import Gate, StartGate

WHITELIST = {"model": ("gpt-4*", "o?"), "n": ("1", "2"), "stream": ("true",)}
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


def check(body: bytes | str | dict[str, Any], content_type: bytes = b"application/json") -> None:
    if isinstance(body, dict):
        body = json.dumps(body)
    check_parameters(body.encode() if isinstance(body, str) else body, content_type, WHITELIST)


def refused(body: bytes | str | dict[str, Any], content_type: bytes = b"") -> Refusal:
    with pytest.raises(Refusal) as caught:
        check(body, content_type)
    assert caught.value.code == "param_not_allowed"
    return caught.value


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"model": "gpt-4"},
        {"model": "gpt-4o-mini", "other": "anything", "messages": [{"model": "evil"}]},
        {"model": "o3", "n": 2, "stream": True},
        {"n": "1"},
    ],
)
def test_allowed_values_pass(body: dict[str, Any]) -> None:
    check(body)


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        ({"model": "gpt-3.5"}, "has the value 'gpt-3.5'; allowed here: gpt-4*, o?."),
        ({"model": "GPT-4"}, "has the value 'GPT-4'"),
        ({"model": " gpt-4"}, "has the value ' gpt-4'"),
        ({"model": ""}, "has the value ''"),
        ({"model": None}, "must be one plain value, not null"),
        ({"model": ["gpt-4"]}, "must be one plain value, not a list"),
        ({"model": {"gpt-4": 1}}, "must be one plain value, not an object"),
        ({"n": 3}, "has the value '3'"),
        ({"n": 1.0}, "has the value '1.0'"),
        ({"stream": False}, "has the value 'false'"),
        ({"model": True}, "has the value 'true'"),
    ],
)
def test_other_values_are_refused_by_name(body: dict[str, Any], shown: str) -> None:
    refusal = refused(body)
    assert f"The parameter {next(iter(body))!r} {shown}" in refusal.message
    assert refusal.details["parameter"] in body


def test_long_value_is_shown_in_part() -> None:
    assert len(refused({"model": "x" * 100_000}).message) < 300


def test_every_repetition_of_a_name_is_checked() -> None:
    refused('{"model": "gpt-4", "model": "evil"}')
    refused('{"model": "evil", "model": "gpt-4"}')
    refused('{"model": "gpt-4", "mo\\u0064el": "evil"}')


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"model=gpt-4", "not valid JSON"),
        (b'{"model": "gpt-4"', "not valid JSON"),
        (b'{"model": "gpt-4"} {}', "not valid JSON"),
        (b"\xff\xfe\xff", "not valid JSON"),
        (b'{"n": ' + b"9" * 5000 + b"}", "not valid JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b'["gpt-4"]', "not a JSON object"),
        (b'"gpt-4"', "not a JSON object"),
        (b"null", "not a JSON object"),
        (b"--x\r\nContent-Disposition: form-data\r\n\r\n", "not valid JSON"),
    ],
)
def test_body_that_cannot_be_checked_is_refused(body: bytes, reason: str) -> None:
    assert reason in refused(body).message


CHARSETS = ["utf-8", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1", "cp1252", "shift_jis"]


@pytest.mark.parametrize("charset", CHARSETS)
def test_declared_charsets_are_read(charset: str) -> None:
    declared = f'application/json; charset="{charset}"'.encode()
    check('{"model": "gpt-4", "a": "z"}'.encode(charset), declared)
    refused('{"model": "evil"}'.encode(charset), declared)


@pytest.mark.parametrize("charset", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32-be"])
def test_undeclared_unicode_is_recognised(charset: str) -> None:
    check('{"model": "gpt-4é"}'.encode(charset))
    refused('{"model": "evil"}'.encode(charset))


def test_latin_1_needs_to_be_declared() -> None:
    body = '{"model": "gpt-4é"}'.encode("latin-1")
    check(body, b"application/json; charset=ISO-8859-1")
    refused(body, b"application/json")


@pytest.mark.parametrize(
    "charset", [b"no-such", b"", b"\xff", b"../x", b"rot13", b"base64", b"zip"]
)
def test_charset_that_is_none_is_refused(charset: bytes) -> None:
    refused(b'{"model": "gpt-4"}', b"application/json; charset=" + charset)


@pytest.mark.parametrize(
    "parameters",
    [
        b";t*;t*0",  # the standard library's reader raises TypeError for this
        b"; charset*0",
        b"; charset*=utf-16''x",
        b"; charset=utf-8; charset=utf-16",
        b'; charset="utf-8',
        b'; a="; charset=utf-16"',
        b";" + b" " * 60_000 + b"charset",
    ],
)
def test_charset_that_readers_may_see_differently_is_refused(parameters: bytes) -> None:
    body = b'{"model": "gpt-4"}'
    if b"charset" in parameters:
        refused(body, b"application/json" + parameters)
    else:
        check(body, b"application/json" + parameters)


@pytest.mark.parametrize("charset", [b"idna", b"punycode", b"unicode_escape", b"undefined"])
def test_codecs_that_are_no_charsets_are_refused_fast(charset: bytes) -> None:
    """Some of them take the square of the length."""
    body = b'{"model": "gpt-4", "a": "' + b"x" * 1_000_000 + b'-\xc3\xa9"}'
    started = time.perf_counter()
    refused(body, b"application/json; charset=" + charset)
    assert time.perf_counter() - started < 10  # seconds; the square of a million takes hours


def test_name_is_read_in_the_declared_charset() -> None:
    body = b'{"+AG0-odel": "evil"}'
    assert json.loads(body.decode("utf-7")) == {"model": "evil"}
    refused(body, b"application/json; charset=utf-7")


@given(
    members=st.lists(
        st.tuples(
            st.sampled_from(["model", "n", "other"]),
            st.one_of(st.none(), st.booleans(), st.integers(), st.text(), st.just("gpt-4")),
        )
    ),
    charset=st.sampled_from(["utf-8", "utf-16", "utf-32", "utf-16-le"]),
)
def test_only_allowed_values_ever_pass(members: list[tuple[str, Any]], charset: str) -> None:
    text = "{" + ", ".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in members) + "}"
    allowed = all(
        name == "other"
        or (name == "n" and value in (1, 2, "1", "2") and value is not True)
        or (name == "model" and isinstance(value, str) and value.startswith("gpt-4"))
        or (name == "model" and isinstance(value, str) and value[:1] == "o" and len(value) == 2)
        for name, value in members
    )
    declared = f"application/json; charset={codecs.lookup(charset).name}".encode()
    try:
        check_parameters(text.encode(charset), declared, WHITELIST)
        passed = True
    except Refusal:
        passed = False
    assert passed is allowed


@given(body=st.binary(), content_type=st.binary(max_size=40))
def test_any_bytes_pass_or_are_refused(body: bytes, content_type: bytes) -> None:
    try:
        check_parameters(body, content_type, WHITELIST)
    except Refusal as refusal:
        assert refusal.code == "param_not_allowed"


@pytest.mark.anyio
@pytest.mark.parametrize("method", [b"POST", b"GET", b"DELETE"])
async def test_body_of_any_method_is_checked(start_gate: StartGate, method: bytes) -> None:
    gate = await start_gate(param_whitelist=WHITELIST)
    response = await gate.ask(gate.request(method=method, body=b'{"model": "evil"}'))
    assert (response.status, response.code) == (400, "param_not_allowed")
    received, response = await gate.relay(gate.request(method=method, body=b"{}"), OK)
    assert response.status == 200


@pytest.mark.anyio
async def test_request_without_a_body_has_nothing_to_check(start_gate: StartGate) -> None:
    gate = await start_gate(param_whitelist=WHITELIST)
    request = gate.request(method=b"GET", target=b"/v1/models")
    assert (await gate.relay(request, OK))[1].status == 200


@pytest.mark.anyio
async def test_parameters_of_the_query_are_checked_too(start_gate: StartGate) -> None:
    gate = await start_gate(param_whitelist={"model": ("gpt-4*",)})
    for query in (b"model=o3", b"a=b&MODEL=o3", b"%6dodel=o3", b"model=gpt-4o&model=o3", b"model"):
        request = gate.request(target=b"/v1/chat/completions?" + query, body=b"{}")
        response = await gate.ask(request)
        assert (response.status, response.code) == (400, "param_not_allowed"), query
    request = gate.request(target=b"/v1/chat/completions?model=gpt-4o&x=o3", body=b"{}")
    assert (await gate.relay(request, OK))[1].status == 200


@pytest.mark.anyio
@pytest.mark.parametrize("coding", [b"gzip", b"identity, gzip", b"br", b"GZIP"])
async def test_compressed_body_cannot_be_checked(start_gate: StartGate, coding: bytes) -> None:
    gate = await start_gate(param_whitelist=WHITELIST)
    response = await gate.ask(gate.request(b"Content-Encoding: " + coding, body=b"{}"))
    assert response.code == "param_not_allowed"
    assert "compressed" in response.error["message"]


async def send_in_pieces(gate: Gate, body: bytes, line: bytes) -> bytes:
    client = await gate.connect()
    await client.send(gate.request(line))
    for start in range(0, len(body), 7):
        await client.send(body[start : start + 7])
    peer = gate.openai.all[0] if gate.openai.all else await gate.openai.accept()
    received = await peer.request()
    await peer.answer(b"ok")
    assert (await client.response()).body == b"ok"
    return received


@pytest.mark.anyio
async def test_checked_body_is_forwarded_as_it_came(start_gate: StartGate) -> None:
    gate = await start_gate(param_whitelist=WHITELIST)
    body = b'{ "model":\t"gpt-4" , "a":\n"' + b"z" * 100 + b'"}'
    received = await send_in_pieces(gate, body, b"Content-Length: %d" % len(body))
    assert received.endswith(b"\r\n\r\n" + body)
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    received = await send_in_pieces(gate, chunks, b"Transfer-Encoding: chunked")
    assert received.endswith(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
    assert gate.grants.loads == gate.grants.loads[:1]


@pytest.mark.anyio
async def test_connection_cannot_hide_the_declared_charset(start_gate: StartGate) -> None:
    """What is checked by a charset must reach the upstream with it."""
    gate = await start_gate(param_whitelist=WHITELIST)
    request = gate.request(
        b"Connection: content-type",
        b"Content-Type: application/json; charset=utf-16",
        body='{"model": "gpt-4"}'.encode("utf-16"),
    )
    received, _ = await gate.relay(request, OK)
    assert b"Content-Type: application/json; charset=utf-16\r\n" in received


@pytest.mark.anyio
async def test_body_to_check_has_a_limit_of_its_own(start_gate: StartGate) -> None:
    gate = await start_gate(param_whitelist=WHITELIST)
    response = await gate.ask(gate.request(b"Content-Length: 10485761"))
    assert (response.status, response.code) == (413, "body_too_large")
    client = await gate.connect()
    body = b'{"model": "gpt-4", "a": "' + b"x" * (10_485_760 - 27) + b'"}'
    client.writer.write(gate.request(body=body))
    peer = await gate.openai.accept()
    assert len(await peer.request()) > len(body)
    await peer.answer()
    assert (await client.response()).status == 200


@pytest.mark.anyio
async def test_token_revoked_while_its_body_is_read_is_refused(start_gate: StartGate) -> None:
    gate = await start_gate(param_whitelist=WHITELIST)
    client = await gate.connect()
    await client.send(gate.request(b"Expect: 100-continue", b"Content-Length: 18"))
    assert (await client.response()).status == 100
    gate.grants.add(gate.token, token_id="token-1", is_active=False)
    gate.tokens.invalidate("token", "token-1")
    await client.send(b'{"model"')
    await client.send(b': "gpt-4"}')
    assert (await client.response()).code == "token_revoked"
