from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.networks import Networks


def test_networks_know_their_addresses() -> None:
    networks = Networks(["10.0.0.0/8", "192.0.2.7", "192.0.2.9/32", "2001:db8::/32"])
    for known in ("10.255.0.1", "192.0.2.7", "192.0.2.9", "2001:db8::1", "2001:db8::%eth0"):
        assert networks.includes(known), known
    for other in ("11.0.0.1", "192.0.2.8", "::1", "::", "unix"):
        assert not networks.includes(other), other
    assert Networks(["unix"]).includes("unix")
    assert not Networks([]).includes("0.0.0.0")


@pytest.mark.parametrize(
    "text", ["", "x", "10.0.0", "10.0.0.1:80", "[::1]", "10.0.0.1\0", "é", "::g"]
)
def test_what_is_no_address_is_in_no_network(text: str) -> None:
    assert not Networks(["0.0.0.0/0", "::/0", "unix"]).includes(text)


@pytest.mark.parametrize("network", ["192.0.2.0/24", "::ffff:192.0.2.0/120"])
def test_ipv4_written_as_ipv6_counts_as_ipv4(network: str) -> None:
    networks = Networks([network])
    assert networks.includes("192.0.2.1")
    assert networks.includes("::ffff:192.0.2.1")
    assert networks.includes("::ffff:c000:201")
    assert not networks.includes("::ffff:192.0.3.1")
    assert not Networks(["::/0"]).includes("::ffff:192.0.2.1")


def networks() -> st.SearchStrategy[IPv4Network | IPv6Network]:
    return st.builds(
        lambda address, bits: ip_network((address, min(bits, address.max_prefixlen)), strict=False),
        st.ip_addresses(),
        st.integers(0, 128),
    )


def is_mapped(address: IPv4Address | IPv6Address) -> bool:
    return isinstance(address, IPv6Address) and address.ipv4_mapped is not None


PLAIN_NETWORKS = networks().filter(lambda network: not is_mapped(network.network_address))
ADDRESSES = (st.ip_addresses() | st.ip_addresses(v=4)).filter(lambda found: not is_mapped(found))


@given(st.lists(PLAIN_NETWORKS, max_size=4), ADDRESSES)
def test_the_answer_is_that_of_the_library(
    known: list[IPv4Network | IPv6Network], address: IPv4Address | IPv6Address
) -> None:
    expected = any(address in network for network in known)
    assert Networks(map(str, known)).includes(str(address)) == expected


@given(st.lists(PLAIN_NETWORKS, max_size=4), st.ip_addresses(v=4))
def test_a_mapped_address_is_where_its_ipv4_address_is(
    known: list[IPv4Network | IPv6Network], address: IPv4Address
) -> None:
    asked = Networks(map(str, known))
    assert asked.includes(f"::ffff:{address}") == asked.includes(str(address))


@given(PLAIN_NETWORKS)
def test_the_ends_of_a_network_are_in_it(network: IPv4Network | IPv6Network) -> None:
    for address in (network[0], network[-1]):
        # A large IPv6 network may end in those that stand for IPv4.
        assert Networks([str(network)]).includes(str(address)) or is_mapped(address)
