"""The public address's sockets, kept open while one generation of workers follows another."""

from __future__ import annotations

import socket
from collections.abc import Sequence

from llm_proxy.errors import LLMProxyError
from llm_proxy.server.sockets import limit_unsent


class PublicSockets:
    def __init__(self, sockets: Sequence[socket.socket]) -> None:
        """Takes over `sockets`, at least one: all of one address, listening."""
        self._sockets = list(sockets)

    def spread(self, workers: int) -> list[list[socket.socket]]:
        """The sockets of each worker; every socket is some worker's, for connections wait in it.

        What is bound here doesn't listen yet, so that nobody waits in it before a worker is there.
        """
        while len(self._sockets) < workers and self._sockets[0].family != socket.AF_UNIX:
            self._sockets.append(_bind_another(self._sockets[0]))
        held = len(self._sockets)
        return [
            self._sockets[slot::workers] or [self._sockets[slot % held]] for slot in range(workers)
        ]

    def close(self) -> None:
        for sock in self._sockets:
            sock.close()


def _bind_another(model: socket.socket) -> socket.socket:
    sock = socket.socket(model.family, model.type)
    try:
        if model.family == socket.AF_INET6:
            is_v6_only = model.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, is_v6_only)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        limit_unsent(sock)
        sock.bind(model.getsockname())
    except OSError as exc:
        sock.close()
        raise LLMProxyError(
            f"a socket for another worker can't be bound ({exc.strerror}); use fewer workers"
        ) from exc
    sock.setblocking(False)
    return sock
