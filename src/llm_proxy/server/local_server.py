"""How this machine reaches the server of a home: over TCP, TLS or a Unix socket."""

from __future__ import annotations

import http.client
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from llm_proxy.address import UNIX
from llm_proxy.errors import ConfigError
from llm_proxy.networks import Networks
from llm_proxy.server.runtime_folder import CONTROL_SOCKET
from llm_proxy.server.state import ServerState
from llm_proxy.settings import Settings

_EVERY_ADDRESS: Final = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}
_CERTIFICATE_END: Final = "-----END CERTIFICATE-----\n"
_NAMES_NOBODY: Final = b"PROXY UNKNOWN\r\n"  # the PROXY protocol's way of speaking for oneself


def local_url(address: str, *, has_tls: bool = False) -> str:
    """The URL by which this machine reaches a server that listens on `address`."""
    if address.startswith("unix:"):
        return address
    host, _, port = address.rpartition(":")
    return f"http{'s' if has_tls else ''}://{_EVERY_ADDRESS.get(host, host)}:{port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalServer:
    address: str  # HOST:PORT or unix:PATH
    tls_cert: Path | None = None
    proxy_protocol: bool = False
    trusted_proxies: tuple[str, ...] = ()

    @classmethod
    def running(cls, state: ServerState) -> LocalServer:
        return cls(
            address=state.address,
            tls_cert=None if state.tls_cert is None else Path(state.tls_cert),
            proxy_protocol=state.proxy_protocol,
            trusted_proxies=state.trusted_proxies,
        )

    @classmethod
    def to_be_started(cls, settings: Settings) -> LocalServer:
        return cls(
            address=str(settings.listen_addr),
            tls_cert=settings.tls_cert,
            proxy_protocol=settings.proxy_protocol,
            trusted_proxies=settings.trusted_proxies,
        )

    @property
    def url(self) -> str:
        return local_url(self.address, has_tls=self.tls_cert is not None)

    def tls_context(self) -> ssl.SSLContext | None:
        """For a client of its own making. Raises ConfigError."""
        return None if self.tls_cert is None else _pinned(self.tls_cert)

    def connection(self, *, timeout_s: float) -> http.client.HTTPConnection:
        """Connects when it is first used; raises OSError or ConfigError then."""
        return _Connection(self, timeout_s)

    def connect(self, timeout_s: float) -> socket.socket:
        sock = self._dial(timeout_s)
        try:
            if self._must_introduce(sock):
                sock.sendall(_NAMES_NOBODY)
            if self.tls_cert is None:
                return sock
            return _pinned(self.tls_cert).wrap_socket(sock, server_hostname="localhost")
        except BaseException:
            sock.close()
            raise

    def _dial(self, timeout_s: float) -> socket.socket:
        if not self.address.startswith("unix:"):
            host, _, port = local_url(self.address).removeprefix("http://").rpartition(":")
            return socket.create_connection((host.strip("[]"), int(port)), timeout_s)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(timeout_s)
            sock.connect(self.address.removeprefix("unix:"))
        except BaseException:
            sock.close()
            raise
        return sock

    def _must_introduce(self, sock: socket.socket) -> bool:
        """Whether the server expects the PROXY protocol from where this connection comes."""
        if not self.proxy_protocol or not self.trusted_proxies:
            return self.proxy_protocol
        own = sock.getsockname()
        return Networks(self.trusted_proxies).includes(own[0] if isinstance(own, tuple) else UNIX)


def control_url(state: ServerState) -> str | None:
    """Of the management API, on the private socket: whatever the public address speaks."""
    if state.runtime_folder is None:
        return None
    return f"unix:{Path(state.runtime_folder) / CONTROL_SOCKET}"


class _Connection(http.client.HTTPConnection):
    def __init__(self, server: LocalServer, timeout_s: float) -> None:
        super().__init__("localhost")
        self._server = server
        self._timeout_s = timeout_s

    def connect(self) -> None:
        self.sock = self._server.connect(self._timeout_s)


def _pinned(certificate: Path) -> ssl.SSLContext:
    """Trusts the server's own certificate alone, whoever issued it and for whatever name."""
    try:
        first = certificate.read_text("ascii").partition(_CERTIFICATE_END)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.load_verify_locations(cadata="".join(first[:2]))
    except (OSError, ValueError) as exc:
        raise ConfigError(f"the server's certificate {certificate} can't be read: {exc}") from exc
    return context
