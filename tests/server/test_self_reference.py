from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from llm_proxy.errors import ConfigError
from llm_proxy.http1.resolver import Resolver
from llm_proxy.providers import Api
from llm_proxy.server.self_reference import check_self_reference

pytestmark = pytest.mark.anyio


def api(base_url: str) -> Api:
    return Api(name="loop", base_url=base_url, allowed_endpoints=("/*",), allowed_methods=())


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def listen(stack: ExitStack, host: str, *, is_v6_only: bool = True) -> tuple[socket.socket, int]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = stack.enter_context(socket.socket(family))
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, is_v6_only)
    sock.bind((host, 0))
    return sock, sock.getsockname()[1]


def own_address() -> str:
    """Of this machine towards others, where it has one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("198.51.100.1", 9))
        except OSError:
            return "127.0.0.9"
        return str(probe.getsockname()[0])


async def is_refused(sock: socket.socket, url: str, names: dict[str, list[str]]) -> bool:
    resolver = Resolver(lambda host: names.get(host, []))
    try:
        await check_self_reference([api(url)], [sock], resolver=resolver)
    except ConfigError as exc:
        assert f"api loop: its base_url {url} is this server itself" in str(exc)
        return True
    return False


NAMES = {
    "localhost": ["::1", "127.0.0.1"],
    "me.test": ["127.0.0.1"],
    "far.test": ["198.51.100.7", "2001:db8::1"],
    "me6.test": ["::1"],
}


@pytest.mark.parametrize(
    ("bound", "host", "expected"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "127.1", True),
        ("127.0.0.1", "localhost", True),
        ("127.0.0.1", "me.test", True),
        ("127.0.0.1", "0.0.0.0", True),
        ("127.0.0.1", "[::ffff:127.0.0.1]", True),
        ("127.0.0.1", "127.0.0.2", False),
        ("127.0.0.1", "[::1]", False),
        ("127.0.0.1", "me6.test", False),
        ("127.0.0.1", "far.test", False),
        ("127.0.0.1", "unknown.test", False),
        ("0.0.0.0", "127.0.0.1", True),
        ("0.0.0.0", "127.9.9.9", True),
        ("0.0.0.0", own_address(), True),
        ("0.0.0.0", "0.0.0.0", True),
        ("0.0.0.0", "localhost", True),
        ("0.0.0.0", "me6.test", False),
        ("0.0.0.0", "far.test", False),
        ("::1", "[::1]", True),
        ("::1", "[0:0::1]", True),
        ("::1", "[::]", True),
        ("::1", "localhost", True),
        ("::1", "127.0.0.1", False),
    ],
)
async def test_upstream_that_is_the_server_is_refused(
    stack: ExitStack, bound: str, host: str, expected: bool
) -> None:
    sock, port = listen(stack, bound)
    assert await is_refused(sock, f"http://{host}:{port}/v1", NAMES) is expected
    assert not await is_refused(sock, f"http://{host}:{port - 1}/v1", NAMES)
    assert await is_refused(sock, f"https://{host}:{port}", NAMES) is expected


@pytest.mark.parametrize("is_v6_only", [False, True])
async def test_every_address_of_both_families_is_the_servers(
    stack: ExitStack, is_v6_only: bool
) -> None:
    sock, port = listen(stack, "::", is_v6_only=is_v6_only)
    assert await is_refused(sock, f"http://[::1]:{port}", NAMES)
    assert await is_refused(sock, f"http://127.0.0.1:{port}", NAMES) is not is_v6_only
    assert not await is_refused(sock, f"http://far.test:{port}", NAMES)


async def test_the_address_is_named(stack: ExitStack) -> None:
    sock, port = listen(stack, "127.0.0.1")
    with pytest.raises(ConfigError) as caught:
        await check_self_reference([api(f"http://127.0.0.1:{port}/x")], [sock])
    assert str(caught.value) == (
        f"api loop: its base_url http://127.0.0.1:{port}/x is this server itself "
        f"(127.0.0.1:{port}); give the address of the upstream"
    )


async def test_default_ports_count(stack: ExitStack) -> None:
    sock, _ = listen(stack, "127.0.0.1")
    asked: list[str] = []
    resolver = Resolver(lambda host: asked.append(host) or [])  # type: ignore[func-returns-value]
    await check_self_reference([api("https://a.test")], [sock], resolver=resolver)
    assert asked == []  # another port: its name needs no look-up


async def test_unix_socket_is_no_address(stack: ExitStack) -> None:
    sock = stack.enter_context(socket.socket(socket.AF_UNIX))
    await check_self_reference([api("http://127.0.0.1:80")], [sock])


async def test_names_are_asked_together_and_not_waited_for_long(stack: ExitStack) -> None:
    sock, port = listen(stack, "127.0.0.1")
    may_end = threading.Event()
    stack.callback(may_end.set)

    def hang(host: str) -> list[str]:
        may_end.wait(10)
        return []

    started_at = asyncio.get_running_loop().time()
    apis = [api(f"http://hung{number}.test:{port}") for number in range(5)]
    await check_self_reference(apis, [sock], resolver=Resolver(hang), limit_s=0.05)
    assert asyncio.get_running_loop().time() - started_at < 2
