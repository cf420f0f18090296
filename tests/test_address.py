from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.address import (
    Address,
    UnixAddress,
    is_loopback,
    parse_address,
    parse_listen_address,
    parse_networks,
    parse_unix_address,
    write_networks,
)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8080", Address("127.0.0.1", 8080)),
        ("localhost:0", Address("localhost", 0)),
        ("[::1]:65535", Address("::1", 65535)),
        ("[0:0::1]:80", Address("::1", 80)),
        (":8080", Address("0.0.0.0", 8080)),
    ],
)
def test_address_is_host_and_port(text: str, address: Address) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text",
    ["", "8080", "localhost", "a:", "a:b", "a:-1", "a:65536", "::1:80", "[::1]", "[x]:1", "a/b:1"],
)
def test_bad_address_is_refused_with_the_rule(text: str) -> None:
    with pytest.raises(ValueError, match=r"HOST:PORT .* like 127\.0\.0\.1:8080"):
        parse_address(text)


@given(st.ip_addresses(), st.integers(0, 65535))
def test_address_reads_back_from_its_text(host: object, port: int) -> None:
    address = Address(str(host), port)
    assert parse_address(str(address)) == address


def test_socket_path_is_an_address_to_listen_on() -> None:
    address = parse_listen_address(" unix:/run/llm-proxy.sock ")
    assert address == UnixAddress(Path("/run/llm-proxy.sock"))
    assert str(address) == "unix:/run/llm-proxy.sock"
    assert parse_listen_address("[::1]:80") == Address("::1", 80)


@pytest.mark.parametrize("text", ["unix:", "unix:s", "unix:/run/", "unix:/a\x07", "unix:@name"])
def test_socket_path_is_absolute(text: str) -> None:
    with pytest.raises(ValueError, match="absolute path of a socket"):
        parse_unix_address(text)


def test_socket_path_fits_into_an_address() -> None:
    assert parse_unix_address("unix:/" + "x" * 102)
    with pytest.raises(ValueError, match="at most 103 bytes"):
        parse_unix_address("unix:/" + "x" * 103)


def test_rule_of_what_to_listen_on_names_both_forms() -> None:
    with pytest.raises(ValueError, match=r"HOST:PORT .*, or unix:/PATH"):
        parse_listen_address("8080")


def test_networks_are_written_in_one_way() -> None:
    networks = parse_networks(" 10.0.0.0/8, 192.0.2.1 ,2001:DB8::/32,unix,")
    assert networks == ("10.0.0.0/8", "192.0.2.1/32", "2001:db8::/32", "unix")
    assert parse_networks(write_networks(networks)) == networks
    assert parse_networks("") == ()


def test_loopback_is_recognised() -> None:
    for host in ("localhost", "LocalHost.", "a.localhost", "127.9.9.9", "::1", "::ffff:127.0.0.1"):
        assert is_loopback(host), host
    for host in ("10.0.0.1", "0.0.0.0", "::", "x.example", "localhost.example", ""):
        assert not is_loopback(host), host


@pytest.mark.parametrize("text", ["10.0.0.1/8", "10.0.0.0/33", "localhost", "10.0.0.0;8"])
def test_what_is_no_network_is_refused_with_the_rule(text: str) -> None:
    with pytest.raises(ValueError, match="networks like 10.0.0.0/8 or the word unix"):
        parse_networks(text)
