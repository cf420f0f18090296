from __future__ import annotations

from llm_proxy.http1.origin import Origin, Proxy
from llm_proxy.secrets import Secret


def test_origin_is_written_as_an_address() -> None:
    assert str(Origin(host="a.test", port=443)) == "a.test:443"
    assert str(Origin(host="::1", port=80)) == "[::1]:80"
    assert str(Origin(host="x", unix_path="/run/x")) == "/run/x"


def test_credentials_of_a_proxy_are_never_shown() -> None:
    proxy = Proxy(host="p.test", port=3128, authorization=Secret("Basic dXNlcjpwdw=="))
    assert str(proxy) == "p.test:3128"
    assert "dXNlcjpwdw" not in repr(Origin(host="a.test", proxy=proxy))
