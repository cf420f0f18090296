"""Whether an address lies in one of some networks, answered in less than a microsecond."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_network
from socket import AF_INET, AF_INET6, inet_pton
from typing import Final

from llm_proxy.address import UNIX

_IPV4_MAPPED: Final = bytes(10) + b"\xff\xff"


class Networks:
    """What `parse_networks` gives, to be asked."""

    __slots__ = ("_has_unix", "_ipv4", "_ipv6")

    def __init__(self, names: Iterable[str]) -> None:
        names = list(names)
        self._has_unix = UNIX in names
        networks = [_plain(ip_network(name)) for name in names if name != UNIX]
        self._ipv4 = _by_mask(network for network in networks if network.version == 4)
        self._ipv6 = _by_mask(network for network in networks if network.version == 6)

    def includes(self, address: str) -> bool:
        """IPv4 that is written as IPv6 counts as what it is."""
        try:
            if ":" not in address:
                raw, masks = inet_pton(AF_INET, address), self._ipv4
            else:
                raw, masks = inet_pton(AF_INET6, address.partition("%")[0]), self._ipv6
                if raw.startswith(_IPV4_MAPPED):
                    raw, masks = raw[12:], self._ipv4
        except (OSError, ValueError):
            return self._has_unix and address == UNIX
        found = int.from_bytes(raw)
        for mask, known in masks:  # noqa: SIM110 - any() takes twice as long
            if found & mask in known:
                return True
        return False


def _by_mask(networks: Iterable[IPv4Network | IPv6Network]) -> list[tuple[int, set[int]]]:
    """Addresses of networks of one size together: one look-up for all of them."""
    masks: dict[int, set[int]] = {}
    for network in networks:
        masks.setdefault(int(network.netmask), set()).add(int(network.network_address))
    return list(masks.items())


def _plain(network: IPv4Network | IPv6Network) -> IPv4Network | IPv6Network:
    if isinstance(network, IPv6Network) and network.prefixlen >= 96:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            return IPv4Network((mapped, network.prefixlen - 96))
    return network
