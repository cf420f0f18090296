"""Addresses as people write them: to listen on, to reach, and of proxies in front."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

UNIX = "unix"  # what stands for the address of whoever connects to a Unix socket
_MAX_UNIX_BYTES = 103  # macOS has room for no more, Linux for four more


@dataclass(frozen=True, slots=True)
class Address:
    host: str
    port: int  # 0: any free one

    def __str__(self) -> str:
        return authority(self.host, self.port)


@dataclass(frozen=True, slots=True)
class UnixAddress:
    path: Path

    def __str__(self) -> str:
        return f"unix:{self.path}"


def authority(host: str, port: int) -> str:
    """`host:port` of RFC 3986, IPv6 in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_loopback(host: str) -> bool:
    """Whether a name or an address is one that only this machine itself can reach."""
    import ipaddress

    host = host.lower().rstrip(".")
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        return found.ipv4_mapped.is_loopback
    return found.is_loopback


def parse_address(text: str) -> Address:
    """`HOST:PORT`, `[::1]:PORT`, or `:PORT` for every IPv4 interface."""
    rule = "HOST:PORT with a port from 0 to 65535, like 127.0.0.1:8080 or [::1]:8080"
    host, colon, port = text.strip().rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise ValueError(rule)
    if host.startswith("[") and host.endswith("]"):
        return Address(_ipv6(host[1:-1], rule), int(port))
    if any(char in host for char in ":/@[] \t"):
        raise ValueError(rule)
    return Address(host or "0.0.0.0", int(port))


def _ipv6(text: str, rule: str) -> str:
    import ipaddress

    try:
        return str(ipaddress.IPv6Address(text))
    except ValueError:
        raise ValueError(rule) from None


def parse_listen_address(text: str) -> Address | UnixAddress:
    """What `parse_address` takes, or `unix:/PATH`."""
    if text.strip().startswith("unix:"):
        return parse_unix_address(text)
    try:
        return parse_address(text)
    except ValueError as exc:
        raise ValueError(f"{exc}, or unix:/PATH of a socket") from None


def parse_unix_address(text: str) -> UnixAddress:
    path = text.strip().removeprefix("unix:")
    if not path.startswith("/") or path.endswith("/") or not path.isprintable():
        raise ValueError("unix:/PATH with the absolute path of a socket, like unix:/run/llm.sock")
    if len(path.encode()) > _MAX_UNIX_BYTES:
        raise ValueError(f"unix:/PATH with a path of at most {_MAX_UNIX_BYTES} bytes")
    return UnixAddress(Path(path))


def parse_networks(text: str) -> tuple[str, ...]:
    """`ADDRESS`, `ADDRESS/BITS` and `unix`, separated by commas; in the usual spelling."""
    import ipaddress

    networks = []
    for word in filter(None, (word.strip() for word in text.split(","))):
        try:
            networks.append(UNIX if word == UNIX else str(ipaddress.ip_network(word)))
        except ValueError as exc:
            raise ValueError(
                f"addresses, networks like 10.0.0.0/8 or the word unix, separated by commas ({exc})"
            ) from None
    return tuple(networks)


def write_networks(networks: tuple[str, ...]) -> str:
    return ",".join(networks)
