"""Which proxy requests to an upstream go through: HTTPS_PROXY, HTTP_PROXY and NO_PROXY."""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Mapping
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

import msgspec

from llm_proxy.address import is_loopback
from llm_proxy.errors import ConfigError
from llm_proxy.http1.origin import Proxy
from llm_proxy.http1.tls import client_context
from llm_proxy.secrets import Secret

_FORM: Final = "give http://[USER:PASSWORD@]HOST:PORT"
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class EgressProxy(msgspec.Struct, frozen=True, kw_only=True):
    host: str
    port: int
    is_tls: bool = False  # towards the proxy itself
    authorization: Secret | None = None  # the value of `Proxy-Authorization`


class Egress(msgspec.Struct, frozen=True, kw_only=True):
    """What the variables say, for the worker processes."""

    https: EgressProxy | None = None
    http: EgressProxy | None = None
    direct: tuple[str, ...] = ()  # entries of NO_PROXY

    def proxy_for(self, scheme: str, host: str, port: int) -> Proxy | None:
        """What speaks for one upstream; never for one on this machine."""
        chosen = self.https if scheme == "https" else self.http
        if chosen is None or is_loopback(host) or _is_unspecified(host):
            return None
        if any(_covers(entry, host, port) for entry in self.direct):
            return None
        return Proxy(
            host=chosen.host,
            port=chosen.port,
            tls=client_context(None) if chosen.is_tls else None,
            authorization=chosen.authorization,
        )


def read_egress(environ: Mapping[str, str]) -> Egress:
    """Lower case wins, as with curl. Raises ConfigError, which never shows a value."""
    # A web server that runs us as CGI would let clients set HTTP_PROXY by a `Proxy` header.
    http = ("http_proxy",) if "REQUEST_METHOD" in environ else ("http_proxy", "HTTP_PROXY")
    return Egress(
        https=_read_proxy(environ, "https_proxy", "HTTPS_PROXY"),
        http=_read_proxy(environ, *http),
        direct=_read_direct(environ, "no_proxy", "NO_PROXY"),
    )


def _read(environ: Mapping[str, str], *names: str) -> tuple[str, str]:
    """The name that is set, and its value."""
    for name in names:
        if value := environ.get(name, "").strip():
            return name, value
    return names[0], ""


def _read_proxy(environ: Mapping[str, str], *names: str) -> EgressProxy | None:
    name, value = _read(environ, *names)
    if not value:
        return None
    try:
        url = urlsplit(value if "://" in value else f"http://{value}")
        port = url.port
    except ValueError:
        raise ConfigError(f"{name}: its host or port can't be parsed; {_FORM}") from None
    if url.scheme not in _DEFAULT_PORTS:
        raise ConfigError(f"{name}: proxies are spoken to over http or https, {_FORM}")
    if not url.hostname or not url.hostname.isascii() or port == 0:
        raise ConfigError(f"{name}: it names no host and port; {_FORM}")
    if url.path not in ("", "/") or url.query or url.fragment:
        raise ConfigError(
            f"{name}: nothing may follow the port, and special characters of a password "
            f"are percent-encoded; {_FORM}"
        )
    return EgressProxy(
        host=url.hostname,
        port=port or _DEFAULT_PORTS[url.scheme],
        is_tls=url.scheme == "https",
        authorization=_authorization(url),
    )


def _authorization(url: SplitResult) -> Secret | None:
    """RFC 7617; None without credentials."""
    if not url.username and not url.password:
        return None
    credentials = f"{unquote(url.username or '')}:{unquote(url.password or '')}"
    return Secret(f"Basic {base64.b64encode(credentials.encode()).decode()}")


def _read_direct(environ: Mapping[str, str], *names: str) -> tuple[str, ...]:
    name, value = _read(environ, *names)
    entries = tuple(value.replace(",", " ").lower().split())
    for entry in entries:
        try:
            _split_entry(entry)
        except ValueError:
            raise ConfigError(
                f"{name}: {entry} isn't a host, .suffix, address, network or HOST:PORT"
            ) from None
    return entries


def _split_entry(entry: str) -> tuple[str, int | None]:
    """Host and port of one entry; a network counts as a host."""
    if "/" in entry:
        ipaddress.ip_network(entry, strict=False)
        return entry, None
    if entry.count(":") > 1 and not entry.startswith("["):
        return str(ipaddress.ip_address(entry)), None
    url = urlsplit(f"//{entry}")
    if url.netloc != entry or not url.hostname or "@" in entry:
        raise ValueError(entry)
    return url.hostname, url.port


def _covers(entry: str, host: str, port: int) -> bool:
    wanted, wanted_port = _split_entry(entry)
    if wanted_port not in (None, port):
        return False
    if wanted == "*":
        return True
    host = host.lower().rstrip(".")
    if (address := _address(host)) is None:
        wanted = wanted.removeprefix("*").strip(".")
        return host == wanted or host.endswith(f".{wanted}")
    try:
        return address in ipaddress.ip_network(wanted, strict=False)
    except ValueError:  # a name
        return False


def _is_unspecified(host: str) -> bool:
    address = _address(host)
    return address is not None and address.is_unspecified


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
