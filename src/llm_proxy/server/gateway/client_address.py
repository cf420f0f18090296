"""Who the client is when proxies stand in front, and which of them are believed."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from llm_proxy.networks import Networks

MAX_HOPS: Final = 32  # of X-Forwarded-For that are looked at, from the right
_MAX_REMEMBERED: Final = 4096
_IPV6_SITE: Final = 64  # bits


class TrustedProxies:
    """The networks of the proxies in front, `unix` for whatever comes over a Unix socket."""

    __slots__ = ("_networks", "_remembered")

    def __init__(self, names: Iterable[str]) -> None:
        self._networks = Networks(names)
        self._remembered: dict[str, bool] = {}

    def includes(self, address: str) -> bool:
        known = self._remembered.get(address)
        if known is None:
            if len(self._remembered) >= _MAX_REMEMBERED:
                self._remembered.clear()
            known = self._remembered[address] = self._networks.includes(address)
        return known

    def client_of(self, peer: str, forwarded_for: bytes | None) -> str:
        """The last address of `X-Forwarded-For` that is none of our proxies.

        Only what a trusted proxy appended counts: a client may begin the header with anything.
        """
        peer = plain_address(peer)
        if forwarded_for is None or not self.includes(peer):
            return peer
        client = peer
        for word in reversed(forwarded_for.decode("latin-1").rsplit(",", MAX_HOPS)[-MAX_HOPS:]):
            address = _read_hop(word.strip(" \t"))
            if address is None:
                break  # nothing left of it can be believed
            client = address
            if not self.includes(address):
                break
        return client


def plain_address(address: str) -> str:
    """IPv4 as such, where a socket for both families shows `::ffff:192.0.2.1`."""
    if address.startswith("::ffff:") and "." in address:
        return address[7:]
    return address


@lru_cache(10_000)
def network_of(address: str) -> str:
    """What one client may hold: an IPv4 address, or an IPv6 /64, as whoever has one of its
    addresses has all of them. Whatever else comes stands for itself."""
    address = plain_address(address).partition("%")[0]
    if ":" not in address:
        return address
    try:
        found = ipaddress.IPv6Address(address)
    except ValueError:
        return address
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(found), _IPV6_SITE), strict=False))


def _read_hop(text: str) -> str | None:
    """The address, also with a port or in brackets; None when it is no address."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:  # IPv4 with a port
        text = text.partition(":")[0]
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(found, ipaddress.IPv6Address):
        if found.scope_id is not None:
            return None  # means something on the proxy's machine only
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
    return str(found)
