from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.errors import ConfigError
from llm_proxy.http1.egress import Egress, EgressProxy, read_egress
from llm_proxy.http1.origin import Proxy

PROXY = "http://proxy.test:3128"


def proxy_of(environ: dict[str, str], url: str = "https://api.test:443") -> Proxy | None:
    scheme, _, rest = url.partition("://")
    host, _, port = rest.rpartition(":")
    return read_egress(environ).proxy_for(scheme, host.strip("[]"), int(port))


def test_without_variables_nothing_is_proxied() -> None:
    assert read_egress({"PATH": "/bin", "HTTPS_PROXY": " ", "NO_PROXY": ""}) == Egress()
    assert proxy_of({}) is None


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy"])
def test_https_upstreams_have_their_variable(name: str) -> None:
    proxy = proxy_of({name: PROXY})
    assert proxy == Proxy(host="proxy.test", port=3128)
    assert proxy_of({name: PROXY}, "http://api.test:80") is None


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy"])
def test_http_upstreams_have_theirs(name: str) -> None:
    assert proxy_of({name: PROXY}, "http://api.test:80") is not None
    assert proxy_of({name: PROXY}) is None


def test_lower_case_wins() -> None:
    proxy = proxy_of({"HTTPS_PROXY": PROXY, "https_proxy": "http://other.test:1"})
    assert proxy is not None and proxy.host == "other.test"
    environ = {"HTTPS_PROXY": PROXY, "no_proxy": "a.test", "NO_PROXY": "api.test"}
    assert proxy_of(environ) is not None


def test_clients_of_a_cgi_host_can_not_set_a_proxy() -> None:
    environ = {"REQUEST_METHOD": "GET", "HTTP_PROXY": PROXY}
    assert read_egress(environ) == Egress()
    assert read_egress(environ | {"http_proxy": PROXY}).http is not None


@pytest.mark.parametrize(
    ("value", "host", "port", "is_tls"),
    [
        ("proxy.test:3128", "proxy.test", 3128, False),
        ("proxy.test", "proxy.test", 80, False),
        ("http://Proxy.test/", "proxy.test", 80, False),
        ("https://proxy.test", "proxy.test", 443, True),
        ("HTTPS://proxy.test:8443", "proxy.test", 8443, True),
        ("http://[::1]:3128", "::1", 3128, False),
    ],
)
def test_forms_of_a_proxy(value: str, host: str, port: int, is_tls: bool) -> None:
    proxy = read_egress({"HTTPS_PROXY": value}).https
    assert proxy == EgressProxy(host=host, port=port, is_tls=is_tls)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("socks5://u:hunter2@proxy.test:1080", "over http or https"),
        ("http://u:hunter2@proxy.test:port", "can't be parsed"),
        ("http://u:hunter2@proxy.test:99999", "can't be parsed"),
        ("http://u:hunter2@[::1", "can't be parsed"),
        ("http://u:hunter2@proxy.test:0", "names no host and port"),
        ("http://u:hunter2@", "names no host and port"),
        ("http://u:hunter2@pröxy.test", "names no host and port"),
        ("http://u:hunter2/x@proxy.test:3128", "can't be parsed"),
        ("http://proxy.test:3128/hunter2", "nothing may follow the port"),
        ("http://proxy.test:3128?hunter2", "nothing may follow the port"),
        ("http://u#hunter2@proxy.test", "nothing may follow the port"),
    ],
)
@pytest.mark.parametrize("name", ["HTTPS_PROXY", "http_proxy"])
def test_unusable_proxy_is_told_without_its_value(name: str, value: str, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_egress({name: value})
    assert str(caught.value).startswith(f"{name}: ")
    assert reason in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("url", "credentials"),
    [
        ("http://user:pass@p.test", "user:pass"),
        ("http://us%65r:p%40ss%3A%2Fw%C3%B6rd@p.test", "user:p@ss:/wörd"),
        ("http://user@p.test", "user:"),
        ("http://:pass@p.test", ":pass"),
    ],
)
def test_credentials_are_decoded_and_hidden(url: str, credentials: str) -> None:
    egress = read_egress({"HTTPS_PROXY": url})
    proxy = egress.proxy_for("https", "api.test", 443)
    assert proxy is not None and proxy.authorization is not None
    scheme, _, encoded = proxy.authorization.reveal().partition(" ")
    assert (scheme, base64.b64decode(encoded).decode()) == ("Basic", credentials)
    assert encoded not in repr(egress) + repr(proxy)
    assert "pass" not in repr(egress) + repr(proxy)


def test_proxy_over_tls_is_verified() -> None:
    proxy = proxy_of({"HTTPS_PROXY": "https://p.test"})
    assert proxy is not None and proxy.tls is not None
    assert proxy.tls.check_hostname


@pytest.mark.parametrize(
    ("entries", "url", "is_direct"),
    [
        ("*", "https://api.test:443", True),
        ("api.test", "https://api.test:443", True),
        ("API.test", "https://api.TEST:443", True),
        ("api.test", "https://api.test.:443", True),
        ("test", "https://api.test:443", True),
        ("pi.test", "https://api.test:443", False),
        (".test", "https://api.test:443", True),
        (".api.test", "https://api.test:443", True),
        ("*.test", "https://api.test:443", True),
        (".b.test", "https://api.test:443", False),
        ("api.test:443", "https://api.test:443", True),
        ("api.test:80", "https://api.test:443", False),
        ("*:443", "https://api.test:443", True),
        ("a.test, b.test api.test", "https://api.test:443", True),
        ("192.0.2.1", "https://192.0.2.1:443", True),
        ("192.0.2.1:80", "https://192.0.2.1:443", False),
        ("192.0.2.0/24", "https://192.0.2.9:443", True),
        ("192.0.2.7/24", "https://192.0.2.9:443", True),
        ("192.0.2.0/25", "https://192.0.2.200:443", False),
        ("192.0.2.0/24", "https://[::ffff:192.0.2.9]:443", True),
        ("192.0.2.0/24", "https://api.test:443", False),
        ("2001:db8::/32", "https://[2001:db8::1]:443", True),
        ("2001:db8::1", "https://[2001:DB8:0::1]:443", True),
        ("[2001:db8::1]:443", "https://[2001:db8::1]:443", True),
        ("[2001:db8::1]:80", "https://[2001:db8::1]:443", False),
        ("0.2.1", "https://192.0.2.1:443", False),
    ],
)
def test_what_is_not_proxied(entries: str, url: str, is_direct: bool) -> None:
    assert (proxy_of({"HTTPS_PROXY": PROXY, "NO_PROXY": entries}, url) is None) is is_direct


@pytest.mark.parametrize(
    "entry", ["192.0.2.0/33", "a.test/24", "a.test:port", "[::1", "u@a.test", "a?b", ":80"]
)
def test_unusable_exception_is_told(entry: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_egress({"NO_PROXY": f"good.test,{entry}"})
    assert str(caught.value) == (
        f"NO_PROXY: {entry} isn't a host, .suffix, address, network or HOST:PORT"
    )


@pytest.mark.parametrize(
    "host",
    ["localhost", "LocalHost.", "a.localhost", "127.0.0.1", "127.9.9.9", "::1", "0.0.0.0", "::"],
)
def test_this_machine_is_never_asked_for_through_a_proxy(host: str) -> None:
    egress = read_egress({"HTTPS_PROXY": PROXY})
    assert egress.proxy_for("https", host, 443) is None


@given(st.dictionaries(st.sampled_from(["HTTPS_PROXY", "http_proxy", "NO_PROXY"]), st.text()))
def test_any_value_is_either_understood_or_refused(environ: dict[str, str]) -> None:
    try:
        egress = read_egress(environ)
    except ConfigError:
        return
    for host in ("api.test", "192.0.2.1", "2001:db8::1"):
        for scheme in ("http", "https"):
            proxy = egress.proxy_for(scheme, host, 443)
            assert proxy is None or (proxy.host and 0 < proxy.port < 65536)
