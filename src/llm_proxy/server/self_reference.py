"""An upstream that is this server itself: refused, since every request would go round for ever."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import Iterable, Sequence
from typing import Final
from urllib.parse import urlsplit

from llm_proxy.address import authority
from llm_proxy.errors import ConfigError
from llm_proxy.http1.resolver import ResolveError, Resolver
from llm_proxy.providers import Api

_LIMIT_S: Final = 2.0  # for all names together; one that takes longer may be anything
_LOOPBACK: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # who connects to "any" gets there


async def check_self_reference(
    apis: Iterable[Api],
    listeners: Sequence[socket.socket],
    *,
    resolver: Resolver | None = None,
    limit_s: float = _LIMIT_S,
) -> None:
    """`listeners` are bound; those of other families than IP don't matter. Raises ConfigError.
    A name that doesn't resolve is no error here."""
    resolver = resolver or Resolver()
    ours = [sock for sock in listeners if sock.family in (socket.AF_INET, socket.AF_INET6)]
    ports = {sock.getsockname()[1] for sock in ours}
    suspects = [(api, *_target(api)) for api in apis if _target(api)[1] in ports]
    found = await asyncio.gather(*(_addresses(resolver, host, limit_s) for _, host, _ in suspects))
    for (api, _, port), addresses in zip(suspects, found, strict=True):
        for address in addresses:
            if sock := next((one for one in ours if _leads_to(address, port, one)), None):
                raise ConfigError(
                    f"api {api.name}: its base_url {api.base_url} is this server itself "
                    f"({authority(*sock.getsockname()[:2])}); give the address of the upstream"
                )


def _target(api: Api) -> tuple[str, int]:
    url = urlsplit(api.base_url)
    return url.hostname or "", url.port or (443 if url.scheme == "https" else 80)


async def _addresses(resolver: Resolver, host: str, limit_s: float) -> tuple[str, ...]:
    with contextlib.suppress(ResolveError, TimeoutError):
        async with asyncio.timeout(limit_s):
            return await resolver.resolve(host)
    return ()


def _leads_to(address: str, port: int, sock: socket.socket) -> bool:
    """Whether `sock` accepts what is sent to `address`."""
    bound, bound_port = sock.getsockname()[:2]
    if port != bound_port:
        return False
    target = _parse(_LOOPBACK.get(address, address))
    if bound == "0.0.0.0":
        return target.version == 4 and _is_of_this_machine(target)
    if bound == "::":
        takes_both = not sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
        return (target.version == 6 or takes_both) and _is_of_this_machine(target)
    return target == _parse(bound)


def _parse(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    parsed = ipaddress.ip_address(address.partition("%")[0])
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return mapped or parsed


def _is_of_this_machine(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Asks the routes, without sending anything: from a local address to itself."""
    if address.is_loopback:  # all of 127.0.0.0/8 is reached from 127.0.0.1
        return True
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((str(address), 9))
            return _parse(probe.getsockname()[0]) == address
    except OSError:  # no route, or no such family
        return False
