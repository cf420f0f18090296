from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy import setting_values as rules
from llm_proxy.address import parse_address
from llm_proxy.secrets import Secret, new_encryption_key


@given(st.text(max_size=30))
def test_any_text_is_an_address_or_refused(text: str) -> None:
    try:
        assert 0 <= parse_address(text).port <= 65535
    except ValueError as refused:
        assert "HOST:PORT" in str(refused)


def test_quantities_must_be_above_zero() -> None:
    assert rules.parse_positive_duration("2m") == 120
    assert rules.parse_positive_size("2KB") == 2048
    for text in ("0s", "x"):
        with pytest.raises(ValueError, match="a duration above zero"):
            rules.parse_positive_duration(text)
    for text in ("0", "x"):
        with pytest.raises(ValueError, match="a size above zero"):
            rules.parse_positive_size(text)


def test_whole_numbers_have_bounds() -> None:
    parse = rules.parse_whole(1, 256)
    assert (parse("1"), parse(" 256 ")) == (1, 256)
    for text in ("0", "257", "-1", "1.5", "", "²", "9" * 5000):
        with pytest.raises(ValueError, match="a whole number from 1 to 256"):
            parse(text)


def test_booleans_are_words_or_digits() -> None:
    assert all(rules.parse_bool(text) for text in ("true", "1", "YES", "on"))
    assert not any(rules.parse_bool(text) for text in ("False", "0", "no", "off"))
    assert (rules.write_bool(True), rules.write_bool(False)) == ("true", "false")
    with pytest.raises(ValueError, match="true or false"):
        rules.parse_bool("2")


def test_choice_knows_its_aliases() -> None:
    parse = rules.parse_choice("info", "warning", warn="warning")
    assert (parse("INFO"), parse("warn")) == ("info", "warning")
    with pytest.raises(ValueError, match="one of info, warning"):
        parse("loud")


def test_paths() -> None:
    assert rules.parse_path("a/b") == Path("a/b")
    for text in ("", " ", "a\0b"):
        with pytest.raises(ValueError, match="the path of a file"):
            rules.parse_path(text)


@pytest.mark.parametrize(
    "text", ["https://api.openai.com", "http://127.0.0.1:8089", "http://[::1]:1/prefix/v1"]
)
def test_url_is_kept_without_its_last_slash(text: str) -> None:
    assert rules.parse_url(text) == text
    assert rules.parse_url(text + "/") == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "api.openai.com",
        "ftp://x",
        "https://",
        "https://u:p@x",
        "https://x?q=1",
        "https://x#f",
        "https://x:99999",
        "https://x:0",
        "https://[::1",
        "https://a b",
        "https://x\\y",
        "https://exämple",
    ],
)
def test_bad_url_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"a URL like https://api\.example\.com"):
        rules.parse_url(text)


def test_management_token_can_travel_in_a_header() -> None:
    assert rules.parse_management_token("abc") == Secret("abc")
    for text in ("", "a b", "a\nb", "ä"):
        with pytest.raises(ValueError, match="visible ASCII"):
            rules.parse_management_token(text)


def test_encryption_key_is_32_bytes_in_base64() -> None:
    key = new_encryption_key()
    assert rules.parse_encryption_key(key.reveal() + "\n") == key
    for text in ("", "short", "AAAA", "ä" * 44, key.reveal()[:-4] + "===="):
        with pytest.raises(ValueError, match="32 bytes in base64"):
            rules.parse_encryption_key(text)


@pytest.mark.parametrize("path", ["/metrics", "/internal/metrics-1.0", " /a_b "])
def test_path_of_the_metrics(path: str) -> None:
    assert rules.parse_metrics_path(path) == path.strip()


@pytest.mark.parametrize(
    "path",
    ["", "/", "metrics", "//metrics", "/metrics/", "/../metrics", "/a b", "/a?b", "/é", "/" * 3]
    + ["/manage", "/manage/metrics", "/admin/x", "/health", "/ready", "/live", "/" + "a" * 200],
)
def test_path_that_the_metrics_cannot_have(path: str) -> None:
    with pytest.raises(ValueError, match="a path like /metrics"):
        rules.parse_metrics_path(path)


@pytest.mark.parametrize(
    ("text", "rate"),
    [("100", "100/min"), (" 5/s ", "5/s"), ("10/hour", "10/h"), ("Unlimited", "unlimited")],
)
def test_rate_limit_without_a_time_is_of_a_minute(text: str, rate: str) -> None:
    assert rules.parse_rate_limit(text) == rate


@pytest.mark.parametrize("text", ["", "0", "-5", "5/fortnight", "many"])
def test_rate_limit_that_is_none_is_told_the_rule(text: str) -> None:
    with pytest.raises(ValueError, match=r"requests in a time, like 10/s.*bare number"):
        rules.parse_rate_limit(text)


@pytest.mark.parametrize(("text", "seconds"), [("10ms", 0.01), (" 250ms ", 0.25), ("1s", 1.0)])
def test_redis_answers_within_a_second_or_not_at_all(text: str, seconds: float) -> None:
    assert rules.parse_redis_timeout(text) == seconds


@pytest.mark.parametrize("text", ["", "9ms", "2s", "250", "0s"])
def test_other_times_for_redis_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a duration from 10ms to 1s"):
        rules.parse_redis_timeout(text)


@pytest.mark.parametrize("text", [":6379", "localhost:0", "localhost"])
def test_address_of_redis_is_one_to_reach(text: str) -> None:
    with pytest.raises(ValueError, match="HOST:PORT"):
        rules.parse_redis_address(text)
