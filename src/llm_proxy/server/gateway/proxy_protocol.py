"""The PROXY protocol: what a proxy in front says of the client, before anything else.

Version 1 is a line of text, version 2 is binary (sections 2.1 and 2.2 of the specification,
"The PROXY protocol, versions 1 & 2", which HAProxy publishes).
"""

from __future__ import annotations

import socket
import struct
from typing import Final, NamedTuple

MAX_V1_BYTES: Final = 107  # with CRLF
MAX_V2_BYTES: Final = 4096  # addresses need 232; the rest are TLVs that nobody here reads
_V1: Final = b"PROXY "
_V2: Final = b"\r\n\r\n\x00\r\nQUIT\n"
_FIXED_V2: Final = struct.Struct("!12sBBH")  # signature, version and command, family, length
_LOCAL, _PROXY = 0x20, 0x21
_FAMILIES: Final = {"TCP4": socket.AF_INET, "TCP6": socket.AF_INET6}
# Address family and transport: how long both addresses and ports are, and how to read the first.
_TCP4, _TCP6 = 0x11, 0x21
_LENGTHS: Final = {0x00: 0, _TCP4: 12, 0x12: 12, _TCP6: 36, 0x22: 36, 0x31: 216, 0x32: 216}


class ProxyProtocolError(ValueError):
    """What came is not a header, or not one that may be believed."""


class ProxyHeader(NamedTuple):
    size: int  # bytes of what came that belong to it
    client: str | None  # None: it names nobody, so the peer itself is the client


def parse_proxy_header(data: bytes) -> ProxyHeader | None:
    """None when more must come; at most `MAX_V2_BYTES` are ever asked for."""
    if data[:12] == _V2[: len(data)]:
        return _parse_v2(data)
    if data[:6] == _V1[: len(data)]:
        return _parse_v1(data)
    raise ProxyProtocolError("the connection does not begin with a PROXY protocol header")


def _parse_v1(data: bytes) -> ProxyHeader | None:
    end = data.find(b"\r\n", 0, MAX_V1_BYTES)
    if end < 0:
        if len(data) >= MAX_V1_BYTES:
            raise ProxyProtocolError(f"the line is longer than {MAX_V1_BYTES} bytes")
        return None
    try:
        words = data[:end].decode("ascii").split(" ")
    except UnicodeDecodeError:
        raise ProxyProtocolError("the line is not ASCII") from None
    if words[1] == "UNKNOWN":
        return ProxyHeader(end + 2, None)  # whatever follows is to be ignored
    if len(words) != 6 or words[1] not in _FAMILIES:
        raise ProxyProtocolError("the line is not `PROXY TCP4|TCP6 source target port port`")
    family = _FAMILIES[words[1]]
    client, _ = _address(family, words[2]), _address(family, words[3])
    for port in words[4:]:
        # Without leading zeros and the like: two readers must not see two numbers.
        if not (port.isdigit() and len(port) <= 5 and str(int(port)) == port and int(port) < 65536):
            raise ProxyProtocolError("a port is no number from 0 to 65535")
    return ProxyHeader(end + 2, client)


def _address(family: int, text: str) -> str:
    try:
        return socket.inet_ntop(family, socket.inet_pton(family, text))
    except (OSError, ValueError):
        raise ProxyProtocolError("an address is malformed") from None


def _parse_v2(data: bytes) -> ProxyHeader | None:
    if len(data) < _FIXED_V2.size:
        return None
    _, command, family, length = _FIXED_V2.unpack_from(data)
    size = _FIXED_V2.size + length
    if command not in (_LOCAL, _PROXY):
        raise ProxyProtocolError(f"version and command {command:#04x} are unknown")
    if size > MAX_V2_BYTES:
        raise ProxyProtocolError(f"the header is longer than {MAX_V2_BYTES} bytes")
    if command == _PROXY and length < _LENGTHS.get(family, size):
        raise ProxyProtocolError(f"there is no address of family {family:#04x} in it")
    if len(data) < size:
        return None
    client = None
    if command == _PROXY and family == _TCP4:
        client = socket.inet_ntop(socket.AF_INET, data[16:20])
    elif command == _PROXY and family == _TCP6:
        client = socket.inet_ntop(socket.AF_INET6, data[16:32])
    return ProxyHeader(size, client)  # LOCAL, and families of no use here: the peer itself
