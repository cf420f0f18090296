from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from llm_proxy import provider_rules as rules
from llm_proxy.errors import ConfigError
from llm_proxy.yaml_file import Value, parse_yaml


def _value(text: str) -> Value:
    return parse_yaml(f"k: {text}\n".encode(), name="f").mapping()["k"]


def _refusal(read: Callable[[Value], object], text: str) -> str:
    with pytest.raises(ConfigError) as refused:
        read(_value(text))
    return str(refused.value)


def _refused_name(name: str) -> str:
    with pytest.raises(ConfigError) as refused:
        rules.check_api_name(_value("x"), name)
    return str(refused.value)


def test_api_names_are_short_words_that_shadow_nothing() -> None:
    for name in ("openai", "my-api_2", "0x"):
        rules.check_api_name(_value("x"), name)
    for name in ("OpenAI", "", "a/b", "-a", "a" * 41, "ä"):
        assert "must be lower-case letters" in _refused_name(name)
    for name in ("manage", "admin", "health", "ready", "live", "metrics"):
        assert "is taken by llm-proxy's own paths" in _refused_name(name)


def test_base_url_may_have_a_path_and_nothing_else() -> None:
    assert rules.base_url(_value("https://x.example/prefix/")) == "https://x.example/prefix"
    assert "with http or https" in _refusal(rules.base_url, "ws://x")
    assert "without user name" in _refusal(rules.base_url, "https://x/?a=1")


def test_password_in_a_base_url_is_not_repeated() -> None:
    assert "canary" not in _refusal(rules.base_url, "https://user:canary@x.example")


@pytest.mark.parametrize("text", ["/", "/*", "/v1/models", "/v1/files/*", "/v1/a:b", "/a%20b"])
def test_endpoint_is_a_path_or_a_subtree(text: str) -> None:
    assert rules.endpoint(_value(f'"{text}"')) == text


@pytest.mark.parametrize(
    "text",
    ["", "v1", "*", "/v1*", "/v1/*/x", "/a?b", "/a#b", "/a b", "//a", "/a//b", "/a/../b", "/./a"],
)
def test_bad_endpoint_is_refused(text: str) -> None:
    assert "f:1: k must be a path" in _refusal(rules.endpoint, f'"{text}"')


def test_methods_are_capitals_that_can_be_forwarded() -> None:
    assert rules.method(_value("PATCH")) == "PATCH"
    assert "capital letters" in _refusal(rules.method, "get")
    assert "capital letters" in _refusal(rules.method, "'GET POST'")
    for text in ("CONNECT", "TRACE"):
        assert "CONNECT and TRACE can't" in _refusal(rules.method, text)


def test_credential_goes_into_a_header_that_can_carry_it() -> None:
    assert rules.credential_header(_value("x-api-key")) == "x-api-key"
    assert "name of a header" in _refusal(rules.credential_header, "'x api'")
    for text in ("Host", "content-length", "Transfer-Encoding", "Connection"):
        assert "frames or routes the message" in _refusal(rules.credential_header, text)


def test_scheme_is_a_word_or_empty() -> None:
    assert rules.scheme(_value('""')) == ""
    assert rules.scheme(_value("Bearer")) == "Bearer"
    assert "a word like Bearer" in _refusal(rules.scheme, "'Bearer token'")


def test_globs_are_short_and_closed() -> None:
    assert [rules.glob(_value(text)) for text in ("gpt-4*", "'[ab]?'", "1")] == [
        "gpt-4*",
        "[ab]?",
        "1",
    ]
    assert "closed by a ]" in _refusal(rules.glob, "'gpt-['")
    assert "1 to 200 characters" in _refusal(rules.glob, "''")
    assert "1 to 200 characters" in _refusal(rules.glob, "a" * 201)


def test_origins_are_as_browsers_send_them() -> None:
    for text in ("https://app.example.com", "http://localhost:3000", "'null'"):
        assert rules.origin(_value(text)) == text.strip("'")
    for text in ("'*'", "https://x/", "https://X", "x.example", "https://x/p", "https://*.x"):
        assert "an origin as browsers send it" in _refusal(rules.origin, text)


def test_ca_file_is_looked_for_beside_the_provider_file(tmp_path: Path) -> None:
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    assert rules.ca_file(_value("ca.pem"), tmp_path) == str(tmp_path / "ca.pem")


def test_ca_file_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.pem").write_text("no certificate")

    def read(value: Value) -> str:
        return rules.ca_file(value, tmp_path)

    assert _refusal(read, "no.pem") == f"f:1: k {tmp_path}/no.pem can't be read: " + (
        "No such file or directory"
    )
    assert "must be a file of PEM certificates, not 'text.pem'" in _refusal(read, "text.pem")
    assert _refusal(read, "'a\\0b'")
