from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.errors import ConfigError
from llm_proxy.redis_address import RedisAddress, parse_redis_url, redis_address
from llm_proxy.secrets import Secret
from llm_proxy.settings import load_settings


def _address(**environ: str) -> RedisAddress | None:
    return redis_address(load_settings({}, environ=environ))


def test_without_settings_there_is_none() -> None:
    assert _address() is None


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"REDIS_ADDR": "cache:6380"}, RedisAddress(host="cache", port=6380)),
        (
            {"REDIS_ADDR": "[::1]:6380", "REDIS_DB": "2", "REDIS_PASSWORD": "p w"},
            RedisAddress(host="::1", port=6380, database=2, password=Secret("p w")),
        ),
        ({"REDIS_URL": "redis://cache"}, RedisAddress(host="cache")),
        ({"REDIS_URL": " redis://cache/ "}, RedisAddress(host="cache")),
        (
            {"REDIS_URL": "rediss://me:p%40ss@[::1]:1/7", "REDIS_CA_FILE": "/ca.pem"},
            RedisAddress(
                host="::1",
                port=1,
                database=7,
                username="me",
                password=Secret("p@ss"),
                uses_tls=True,
                ca_file=Path("/ca.pem"),
            ),
        ),
        (
            {"REDIS_URL": "redis://me@cache", "REDIS_PASSWORD": "x"},
            RedisAddress(host="cache", username="me", password=Secret("x")),
        ),
    ],
)
def test_settings_say_where_it_is(environ: dict[str, str], expected: RedisAddress) -> None:
    assert _address(**environ) == expected


@pytest.mark.parametrize(
    ("environ", "word"),
    [
        ({"REDIS_URL": "redis://a", "REDIS_ADDR": "a:1"}, "remove one of them"),
        ({"REDIS_URL": "redis://:p@a", "REDIS_PASSWORD": "x"}, "remove one of them"),
        ({"REDIS_URL": "redis://a", "REDIS_DB": "1"}, "REDIS_DB goes with REDIS_ADDR"),
        ({"REDIS_URL": "redis://a", "REDIS_CA_FILE": "/ca.pem"}, "rediss://"),
        ({"REDIS_ADDR": "a:1", "REDIS_CA_FILE": "/ca.pem"}, "REDIS_URL=rediss://"),
        ({"REDIS_DB": "1"}, "REDIS_DB says nothing without"),
        ({"REDIS_PASSWORD": "x"}, "REDIS_PASSWORD says nothing without"),
        ({"REDIS_CA_FILE": "/ca.pem"}, "REDIS_CA_FILE says nothing without"),
    ],
)
def test_contradiction_is_an_error(environ: dict[str, str], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        _address(**environ)


@pytest.mark.parametrize(
    "url",
    [
        *("", "cache:6379", "http://cache", "redis://", "redis://cache:0", "redis://cache:x"),
        *("redis://cache/x", "redis://cache/1/2", "redis://cache/-1", "redis://cache?db=1"),
        *("redis://cache#1", "redis://ca che", "redis://cäche", "redis://[::1", "unix:///x"),
        "redis://cache/99999999",
    ],
)
def test_what_is_no_url_of_redis_is_refused_with_the_rule(url: str) -> None:
    with pytest.raises(ValueError, match="a URL like redis://"):
        parse_redis_url(url)


@given(st.text())
def test_any_text_is_a_url_or_refused_without_showing_it(text: str) -> None:
    try:
        url = parse_redis_url(f"redis://:hunter2{text}@")
    except ValueError as exc:
        assert "hunter2" not in str(exc)
    else:
        assert "hunter2" not in f"{url} {url!r}"


def test_address_shows_no_password() -> None:
    address = _address(REDIS_URL="redis://me:hunter2@cache:1/7")
    assert str(address) == "cache:1"
    assert "hunter2" not in repr(address)
