from __future__ import annotations

import socket
from pathlib import Path

import pytest

from llm_proxy.errors import LLMProxyError
from llm_proxy.server.public_sockets import PublicSockets
from llm_proxy.server.sockets import bind_public, bind_unix
from llm_proxy.settings import Address

pytestmark = pytest.mark.anyio


def is_listening(sock: socket.socket) -> bool:
    return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_more_workers_get_further_sockets_of_the_same_address(host: str) -> None:
    (first,) = await bind_public(Address(host, 0), slots=1)
    sockets = PublicSockets([first])
    spread = sockets.spread(3)
    assert [len(each) for each in spread] == [1, 1, 1]
    assert spread[0] == [first]
    assert {each[0].getsockname() for each in spread} == {first.getsockname()}
    # Nobody may wait in a socket whose worker isn't there yet.
    assert [is_listening(each[0]) for each in spread] == [True, False, False]
    assert sockets.spread(3) == spread
    sockets.close()
    assert all(each[0].fileno() == -1 for each in spread)


async def test_fewer_workers_share_all_sockets() -> None:
    bound = await bind_public(Address("127.0.0.1", 0), slots=3)
    sockets = PublicSockets(bound)
    assert sockets.spread(2) == [[bound[0], bound[2]], [bound[1]]]
    assert sockets.spread(1) == [bound]
    sockets.close()


def test_every_worker_has_the_one_unix_socket(tmp_path_factory: pytest.TempPathFactory) -> None:
    sock = bind_unix(tmp_path_factory.mktemp("s") / "s")
    sockets = PublicSockets([sock])
    assert sockets.spread(3) == [[sock]] * 3
    sockets.close()


def test_socket_that_cannot_be_bound_is_one_sentence(tmp_path: Path) -> None:
    # Without SO_REUSEPORT: nobody can share its port.
    with socket.create_server(("127.0.0.1", 0)) as taken:
        sockets = PublicSockets([taken])
        with pytest.raises(LLMProxyError, match="another worker can't be bound .* fewer workers"):
            sockets.spread(2)
