"""Where a pool's connections go, and by which way."""

from __future__ import annotations

import ssl
from dataclasses import dataclass

from llm_proxy.address import authority
from llm_proxy.secrets import Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """A proxy on the way, asked for a tunnel with CONNECT."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None
    authorization: Secret | None = None  # the value of `Proxy-Authorization`

    def __str__(self) -> str:
        return authority(self.host, self.port)


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    host: str
    port: int = 0
    tls: ssl.SSLContext | None = None
    unix_path: str | None = None  # instead of host and port
    proxy: Proxy | None = None

    def __str__(self) -> str:
        return self.unix_path or authority(self.host, self.port)
