"""Tokens: only what we made is well-formed, and a client's token is taken from one place only."""

from __future__ import annotations

import base64
import hashlib

from fuzz.target import Target, must
from llm_proxy.errors import Refusal
from llm_proxy.secrets import is_well_formed_token
from llm_proxy.server.gateway.plan import client_token
from llm_proxy.server.gateway.request_head import KEY_PROTOCOL, parse_request_head


def run(data: bytes) -> None:
    token = data[:40]
    must(is_well_formed_token(token) == _is_ours(token), "another checksum is taken for ours")
    made = _make(data)
    must(is_well_formed_token(made), "one of ours is refused")
    at = data[0] % len(made) if data else 0
    spoilt = made[:at] + bytes([made[at] ^ 1]) + made[at + 1 :]
    must(not is_well_formed_token(spoilt), "a typing error is not noticed")
    _check_client_token(data)


def _make(data: bytes) -> bytes:
    random = hashlib.sha256(data).digest()[:20]
    checksum = hashlib.sha256(b"llm-proxy token\x00" + random).digest()[:4]
    return b"sk-" + base64.urlsafe_b64encode(random + checksum)


def _is_ours(token: bytes) -> bool:
    try:
        raw = base64.b64decode(token[3:].replace(b"-", b"+").replace(b"_", b"/"), validate=True)
    except ValueError:
        return False
    checksum = hashlib.sha256(b"llm-proxy token\x00" + raw[:20]).digest()[:4]
    return b"sk-" + base64.urlsafe_b64encode(raw[:20] + checksum) == token


def _check_client_token(data: bytes) -> None:
    lines = data.replace(b"\r", b"").replace(b"\n", b"\r\n")
    try:
        head = parse_request_head(b"GET / HTTP/1.1\r\nHost: a\r\n" + lines + b"\r\n\r\n")
        token = client_token(head)
    except Refusal:
        return
    must(token and token in lines, "a token that nobody sent")
    rest = b"".join(head.parts)
    protocols = [line for line in rest.split(b"\r") if line[1:24].lower() == KEY_PROTOCOL_LINE]
    items = [item.strip() for line in protocols for item in line[24:].split(b",")]
    must(
        not any(item.startswith(KEY_PROTOCOL) for item in items), "a key in a sub-protocol is kept"
    )


KEY_PROTOCOL_LINE = b"sec-websocket-protocol:"
TARGET = Target(
    covers=("llm_proxy.secrets", "llm_proxy.server.gateway.plan"),
    run=run,
    words=(
        *(b"Authorization: Bearer ", b"Authorization: Basic ", b"x-api-key: ", b"api-key: ", b"\n"),
        *(
            b"x-goog-api-key: ",
            b"sk-",
            b"Sec-WebSocket-Protocol: ",
            KEY_PROTOCOL,
            b", ",
            b"  ",
            b"=",
        ),
    ),
    max_bytes=300,
    seeds=(
        _make(b"seed"),
        b"Authorization: Bearer " + _make(b"1"),
        b"x-api-key: a\nApi-Key: b\nAuthorization: Basic c",
        b"Upgrade: websocket\nConnection: upgrade\n"
        b"Sec-WebSocket-Protocol: realtime, openai-insecure-api-key." + _make(b"2"),
    ),
)
