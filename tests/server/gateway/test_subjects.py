from __future__ import annotations

import pytest

from llm_proxy.limits import LimitDefaults
from llm_proxy.server.gateway.subjects import Subjects
from tests.server.gateway.limits import Token, at_once, limited, per_minute


def test_nothing_is_counted_where_nothing_is_limited() -> None:
    subjects = Subjects(LimitDefaults())
    assert subjects.of_grant(Token().grant) == ()
    assert not subjects.by_address


def test_widest_comes_first() -> None:
    subjects = Subjects(LimitDefaults(total=at_once(9), project=per_minute(5)))
    found = subjects.of_grant(Token(token_limits=limited("1/s")).grant)
    assert [subject.key for subject in found] == ["total", "project:p1", "token:t1"]


def test_equal_limits_are_the_same_object() -> None:
    subjects = Subjects(LimitDefaults())
    (one,) = subjects.of_grant(Token(token_limits=limited("1/s")).grant)
    (two,) = subjects.of_grant(Token(token_limits=limited("1/s")).grant)
    assert one.limits is two.limits


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("192.0.2.1", "client_ip:192.0.2.1"),
        ("::ffff:192.0.2.1", "client_ip:192.0.2.1"),
        ("::ffff:c000:201", "client_ip:192.0.2.1"),
        ("2001:db8::1", "client_ip:2001:db8::/64"),
        ("2001:db8::ffff:1", "client_ip:2001:db8::/64"),
        ("2001:db8:0:1::1", "client_ip:2001:db8:0:1::/64"),
        ("fe80::1%eth0", "client_ip:fe80::/64"),
        ("unix", "client_ip:unix"),
        ("no:address", "client_ip:no:address"),
    ],
)
def test_whoever_has_an_ipv6_address_has_its_64(address: str, key: str) -> None:
    assert Subjects(LimitDefaults(client_ip=at_once(1))).of_address(address).key == key


def test_addresses_are_remembered_within_bounds() -> None:
    subjects = Subjects(LimitDefaults(client_ip=at_once(1)))
    first = subjects.of_address("10.0.0.0")
    assert subjects.of_address("10.0.0.0") is first
    for number in range(10_000):
        subjects.of_address(f"10.1.{number // 256}.{number % 256}")
    assert subjects.of_address("10.0.0.0") == first
    assert subjects.of_address("10.0.0.0") is not first
