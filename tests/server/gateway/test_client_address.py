from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.server.gateway.client_address import TrustedProxies, network_of, plain_address
from tests.server.gateway.conftest import StartGate

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
PROXIES = TrustedProxies(["10.0.0.0/8", "2001:db8::/32", "unix"])


@pytest.mark.parametrize(
    ("peer", "header", "client"),
    [
        ("10.0.0.1", b"198.51.100.7", "198.51.100.7"),
        ("10.0.0.1", b"203.0.113.9, 198.51.100.7", "198.51.100.7"),
        ("10.0.0.1", b"203.0.113.9,198.51.100.7 ,\t10.1.1.1, 10.2.2.2", "198.51.100.7"),
        ("10.0.0.1", b"10.1.1.1, 10.2.2.2", "10.1.1.1"),  # nobody but ours: the farthest
        ("10.0.0.1", None, "10.0.0.1"),
        ("10.0.0.1", b"", "10.0.0.1"),
        ("10.0.0.1", b"198.51.100.7, unknown", "10.0.0.1"),
        ("10.0.0.1", b"<script>, 10.3.3.3", "10.3.3.3"),
        ("10.0.0.1", b"fe80::1%eth0", "10.0.0.1"),
        ("10.0.0.1", b"198.51.100.7:4711", "198.51.100.7"),
        ("10.0.0.1", b"[2001:DB9::7]:4711", "2001:db9::7"),
        ("10.0.0.1", b"2001:db9::7", "2001:db9::7"),
        ("10.0.0.1", b"203.0.113.9, ::ffff:10.4.4.4", "203.0.113.9"),
        ("::ffff:10.0.0.1", b"198.51.100.7", "198.51.100.7"),
        ("2001:db8::1", b"198.51.100.7", "198.51.100.7"),
        ("unix", b"198.51.100.7", "198.51.100.7"),
        ("192.0.2.1", b"198.51.100.7", "192.0.2.1"),  # not one of ours
    ],
)
def test_client_is_the_last_that_is_no_proxy(peer: str, header: bytes | None, client: str) -> None:
    assert PROXIES.client_of(peer, header) == client


@given(st.binary(max_size=200))
def test_whatever_a_client_begins_with_its_own_address_counts(forged: bytes) -> None:
    assert PROXIES.client_of("10.0.0.1", forged + b", 198.51.100.7") == "198.51.100.7"


@given(st.binary(max_size=200))
def test_the_outcome_is_an_address(header: bytes) -> None:
    assert ipaddress.ip_address(PROXIES.client_of("10.0.0.1", header))


def test_only_so_many_hops_are_followed() -> None:
    header = b"198.51.100.7, " + b", ".join([b"10.1.1.1"] * 100)
    assert PROXIES.client_of("10.0.0.1", header) == "10.1.1.1"


def test_what_is_remembered_is_bounded() -> None:
    proxies = TrustedProxies(["10.0.0.0/8"])
    for number in range(5000):
        assert not proxies.includes(f"11.0.{number >> 8}.{number & 255}")
    assert proxies.includes("10.0.0.1")
    assert len(proxies._remembered) <= 4096


def test_without_unix_nobody_on_a_unix_socket_is_believed() -> None:
    assert TrustedProxies(["10.0.0.0/8"]).client_of("unix", b"198.51.100.7") == "unix"


@pytest.mark.anyio
async def test_client_is_told_to_the_control_plane_and_recorded_but_not_sent_upstream(
    start_gate: StartGate,
) -> None:
    gate = await start_gate()
    gate.gateway.trusted_proxies = TrustedProxies(["127.0.0.1"])
    forwarded = b"X-Forwarded-For: 203.0.113.9, 198.51.100.7"
    received, _ = await gate.relay(gate.request(forwarded, body=b"{}"), OK)
    assert b"forwarded" not in received.lower()
    assert b"198.51.100.7" not in received
    assert (await gate.records.next()).client_ip == "198.51.100.7"

    client = await gate.connect()
    await client.send(gate.request(forwarded, method=b"GET", target=b"/health", token=b""))
    asked = await (await gate.control.accept()).request()
    assert b"\r\nX-Forwarded-For: 198.51.100.7\r\n" in asked
    assert asked.count(b"X-Forwarded-For") == 1


@pytest.mark.anyio
async def test_header_of_a_stranger_means_nothing(start_gate: StartGate) -> None:
    for trusted in (None, TrustedProxies(["10.0.0.0/8"])):
        gate = await start_gate()
        gate.gateway.trusted_proxies = trusted
        await gate.relay(gate.request(b"X-Forwarded-For: 198.51.100.7", body=b"{}"), OK)
        assert (await gate.records.next()).client_ip == "127.0.0.1"


def test_plain_address() -> None:
    assert plain_address("::ffff:192.0.2.1") == "192.0.2.1"
    assert plain_address("::ffff:1") == "::ffff:1"


@pytest.mark.parametrize(
    ("client_ip", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("unix", "unix"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("no:address", "no:address"),
    ],
)
def test_what_one_client_may_hold(client_ip: str, network: str) -> None:
    assert network_of(client_ip) == network
