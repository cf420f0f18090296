"""Who the client is: PROXY protocol headers cut anywhere, and X-Forwarded-For of anybody."""

from __future__ import annotations

import ipaddress

from fuzz.target import Target, must
from llm_proxy.server.gateway.client_address import TrustedProxies
from llm_proxy.server.gateway.proxy_protocol import (
    MAX_V2_BYTES,
    ProxyHeader,
    ProxyProtocolError,
    parse_proxy_header,
)

V2 = b"\r\n\r\n\x00\r\nQUIT\n"
TRUSTED = TrustedProxies(["10.0.0.0/8", "fd00::/8"])
NOBODY = TrustedProxies([])


def run(data: bytes) -> None:
    _check_proxy_header(data)
    client = TRUSTED.client_of("10.0.0.1", data)
    ipaddress.ip_address(client)  # it is one
    must(client == "10.0.0.1" or _is_in(client, data), "a client that nobody named")
    must(TRUSTED.client_of("192.0.2.1", data) == "192.0.2.1", "a stranger is believed")
    must(NOBODY.client_of("10.0.0.1", data) == "10.0.0.1", "anybody is believed")
    appended = data + (b", " if data else b"") + b"198.51.100.7"
    must(TRUSTED.client_of("10.0.0.1", appended) == "198.51.100.7", "not the last one counts")


def _is_in(client: str, data: bytes) -> bool:
    """In whatever spelling."""
    for word in data.replace(b"[", b",").replace(b"]", b",").decode("latin-1").split(","):
        text = word.strip(" \t")
        for candidate in (text, text.rpartition(":")[0]):
            try:
                found = ipaddress.ip_address(candidate)
            except ValueError:
                continue
            mapped = getattr(found, "ipv4_mapped", None)
            if str(mapped or found) == client:
                return True
    return False


def _check_proxy_header(data: bytes) -> None:
    whole = _parse(data)
    if isinstance(whole, ProxyHeader):
        must(0 < whole.size <= min(len(data), MAX_V2_BYTES), "a header longer than what came")
        must(_parse(data[: whole.size]) == whole, "what follows it matters")
        must(whole.client is None or ipaddress.ip_address(whole.client), "no address")
        must(data.startswith((b"PROXY ", V2)), "a header without its beginning")
    limit = whole.size if isinstance(whole, ProxyHeader) else len(data)
    step = max(limit // 24, 1)
    for end in range(1, limit, step):
        part = _parse(data[:end])
        if whole is not None and not isinstance(whole, ProxyProtocolError):
            must(part is None, "cut it is another header")
        elif whole is None:
            must(part is None, "what may be a header is refused too early")


def _parse(data: bytes) -> ProxyHeader | ProxyProtocolError | None:
    try:
        return parse_proxy_header(data)
    except ProxyProtocolError as exc:
        return exc


TARGET = Target(
    covers=(
        "llm_proxy.server.gateway.proxy_protocol",
        "llm_proxy.server.gateway.client_address",
    ),
    run=run,
    words=(
        *(b"PROXY ", b"TCP4 ", b"TCP6 ", b"UNKNOWN", b"192.0.2.1 ", b"::1 ", b"65535", b"\r\n", V2),
        *(b"\x21\x11\x00\x0c", b"\x20\x00\x00\x00", b"\x21\x21\x00\x24", b", ", b"10.1.1.1", b"["),
        *(b"]:80", b"::ffff:1.2.3.4", b"%eth0", b"\x21\x31\x00\xd8"),
    ),
    max_bytes=400,
    seeds=(
        b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\nGET /",
        b"PROXY TCP6 2001:db8::1 ::1 1 2\r\n",
        b"PROXY UNKNOWN ffff\r\n",
        V2 + b"\x21\x11\x00\x0c" + b"\xc0\x00\x02\x01\xc6\x33\x64\x01\x00\x50\x01\xbb" + b"GET",
        V2 + b"\x20\x00\x00\x03\x04\x00\x00",
        V2 + b"\x21\x21\x00\x24" + bytes(36),
        b"203.0.113.9, 10.1.1.1",
        b"[2001:db8::1]:80, ::ffff:10.0.0.9, fd00::1",
    ),
)
