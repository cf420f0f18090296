from __future__ import annotations

import ipaddress
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.server.gateway.proxy_protocol import (
    MAX_V1_BYTES,
    MAX_V2_BYTES,
    ProxyHeader,
    ProxyProtocolError,
    parse_proxy_header,
)

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
PORTS = st.integers(0, 65535)
AFTER = b"GET / HTTP/1.1\r\n"


def v1(
    client: str, *, family: str = "TCP4", target: str = "192.0.2.9", ports: str = "1 2"
) -> bytes:
    return f"PROXY {family} {client} {target} {ports}\r\n".encode()


def v2(command: int, family: int, block: bytes) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, len(block)) + block


def block_of(client: str, target: str) -> bytes:
    family = socket.AF_INET6 if ":" in client else socket.AF_INET
    ends = socket.inet_pton(family, client) + socket.inet_pton(family, target)
    return ends + struct.pack("!HH", 1, 2)


@given(st.ip_addresses(), PORTS, PORTS)
def test_line_names_the_client(
    client: ipaddress.IPv4Address | ipaddress.IPv6Address, source: int, target: int
) -> None:
    ports = f"{source} {target}"
    if client.version == 4:
        header = v1(str(client), ports=ports)
    else:
        header = v1(str(client), family="TCP6", target="::1", ports=ports)
    found = parse_proxy_header(header + AFTER)
    assert found is not None
    assert found.size == len(header)
    assert ipaddress.ip_address(found.client or "") == client


@given(st.ip_addresses(), st.binary(max_size=300))
def test_binary_header_names_the_client_and_its_tlvs_are_skipped(
    client: ipaddress.IPv4Address | ipaddress.IPv6Address, tlvs: bytes
) -> None:
    target, family = ("192.0.2.9", 0x11) if client.version == 4 else ("2001:db8::9", 0x21)
    header = v2(0x21, family, block_of(str(client), target) + tlvs)
    found = parse_proxy_header(header + AFTER)
    assert found is not None
    assert found.size == len(header)
    assert ipaddress.ip_address(found.client or "") == client


HEADERS = [
    v1("192.0.2.1"),
    v1("2001:db8::1", family="TCP6", target="::1"),
    b"PROXY UNKNOWN\r\n",
    v2(0x21, 0x11, block_of("192.0.2.1", "192.0.2.2")),
    v2(0x20, 0x00, b""),
]


@pytest.mark.parametrize("header", HEADERS)
def test_every_beginning_asks_for_more(header: bytes) -> None:
    for end in range(len(header)):
        assert parse_proxy_header(header[:end]) is None
    assert parse_proxy_header(header) is not None


@given(st.binary(max_size=400))
def test_nothing_but_the_one_error_is_raised(data: bytes) -> None:
    for start in (b"", b"PROXY ", b"PROXY TCP4 ", SIGNATURE, SIGNATURE + b"\x21\x11"):
        try:
            found = parse_proxy_header(start + data)
        except ProxyProtocolError:
            continue
        if found is None:
            assert len(start + data) < MAX_V2_BYTES
        else:
            assert 0 < found.size <= len(start + data)
            assert found.client is None or ipaddress.ip_address(found.client)


@pytest.mark.parametrize(
    "header",
    [
        b"PROXY UNKNOWN\r\n",
        b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n",
        v2(0x20, 0x00, b""),
        v2(0x20, 0x11, block_of("192.0.2.1", "192.0.2.2")),  # LOCAL: the block means nothing
        v2(0x21, 0x00, b"\x04\x00\x01\x00"),  # UNSPEC
        v2(0x21, 0x31, b"/run/a".ljust(108, b"\0") * 2),  # AF_UNIX
        v2(0x21, 0x12, block_of("192.0.2.1", "192.0.2.2")),  # UDP
    ],
)
def test_header_without_a_client_leaves_the_peer(header: bytes) -> None:
    assert parse_proxy_header(header + AFTER) == ProxyHeader(len(header), None)


@pytest.mark.parametrize(
    "line",
    [
        AFTER,
        b"proxy TCP4 1.1.1.1 1.1.1.1 1 1\r\n",
        b"PROXY  TCP4 1.1.1.1 1.1.1.1 1 1\r\n",
        b"PROXY TCP4 1.1.1.1 1.1.1.1 1 1 \r\n",
        b"PROXY TCP4 1.1.1.1 1.1.1.1 1\r\n",
        b"PROXY TCP4\r\n",
        b"PROXY \r\n",
        b"PROXY UDP4 1.1.1.1 1.1.1.1 1 1\r\n",
        b"PROXY TCP4 ::1 ::1 1 1\r\n",
        b"PROXY TCP6 1.1.1.1 1.1.1.1 1 1\r\n",
        b"PROXY TCP4 1.1.1.256 1.1.1.1 1 1\r\n",
        b"PROXY TCP4 01.1.1.1 1.1.1.1 1 1\r\n",
        b"PROXY TCP4 1.1.1.1 example.com 1 1\r\n",
        b"PROXY TCP4 1.1.1.1 1.1.1.1 65536 1\r\n",
        b"PROXY TCP4 1.1.1.1 1.1.1.1 01 1\r\n",
        b"PROXY TCP4 1.1.1.1 1.1.1.1 -1 1\r\n",
        b"PROXY TCP4 1.1.1.1 1.1.1.1 1 x\r\n",
        b"PROXY TCP4 1.1.1.1 1.1.1.1 1 1\n\r\n",
        "PROXY TCP4 1.1.1.1 1.1.1.1 1 ١\r\n".encode(),
        b"PROXY UNKNOWN " + b"x" * MAX_V1_BYTES,
        b"PROXY UNKNOWN " + b"x" * MAX_V1_BYTES + b"\r\n",
    ],
)
def test_malformed_line_is_refused(line: bytes) -> None:
    with pytest.raises(ProxyProtocolError):
        parse_proxy_header(line)


def test_longest_line_is_accepted() -> None:
    line = b"PROXY UNKNOWN ".ljust(MAX_V1_BYTES - 2, b"f") + b"\r\n"
    assert parse_proxy_header(line) == ProxyHeader(MAX_V1_BYTES, None)


@pytest.mark.parametrize(
    "header",
    [
        v2(0x11, 0x11, bytes(12)),  # version 1
        v2(0x22, 0x11, bytes(12)),  # no such command
        v2(0x21, 0x11, bytes(11)),
        v2(0x21, 0x21, bytes(35)),
        v2(0x21, 0x31, bytes(215)),
        v2(0x21, 0x41, bytes(300)),  # no such family
        v2(0x21, 0x13, bytes(12)),  # no such transport
        v2(0x21, 0x11, bytes(MAX_V2_BYTES))[:16],  # as soon as its length is known
        SIGNATURE[:11] + b"\r" + bytes(20),
    ],
)
def test_malformed_binary_header_is_refused(header: bytes) -> None:
    with pytest.raises(ProxyProtocolError):
        parse_proxy_header(header)
