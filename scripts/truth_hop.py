"""A TCP hop before an upstream that adds, or spoils, what it is told to, and keeps a log of it.

    truth_hop.py PORT [--hold-ms MS] [--spoil-every N]

It holds each request for so long, and changes one letter in an event of every Nth answer. It prints
its port as a line of JSON. `GET /truth` answers with the log: an object a request.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import time
from typing import Any, cast

import uvloop
from truth_upstream import wait_until

LETTER = re.compile(rb'"content":" ?([a-zA-Z])')
Log = list[dict[str, Any]]


class ClientSide(asyncio.Protocol):
    def __init__(self, options: argparse.Namespace, log: Log) -> None:
        self.options = options
        self.log = log
        self.upstream: asyncio.Transport
        self.transport: asyncio.Transport
        self.spoils = False
        self.pieces: asyncio.Queue[bytes] = asyncio.Queue()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        self.sending = asyncio.ensure_future(self.send())

    def data_received(self, data: bytes) -> None:
        self.pieces.put_nowait(data)

    def connection_lost(self, error: Exception | None) -> None:
        self.sending.cancel()

    async def send(self) -> None:
        """What the client sent, to the upstream; each request begins a piece."""
        loop = asyncio.get_running_loop()
        self.upstream, _ = await loop.create_connection(
            lambda: UpstreamSide(self), "127.0.0.1", self.options.port
        )
        try:
            while True:
                data, received = await self.pieces.get(), time.perf_counter()
                if data.startswith(b"GET /truth "):
                    self.send_log()
                    continue
                if data.startswith(b"POST "):
                    await self.hold(received)
                self.upstream.write(data)
        finally:
            self.upstream.close()

    async def hold(self, received: float) -> None:
        number = len(self.log) + 1
        self.spoils = bool(self.options.spoil_every) and number % self.options.spoil_every == 0
        entry: dict[str, Any] = {"spoiled": self.spoils}
        self.log.append(entry)
        if self.options.hold_ms:
            await wait_until(received + self.options.hold_ms / 1000)
        entry["held_ms"] = (time.perf_counter() - received) * 1000

    def send_log(self) -> None:
        body = json.dumps(self.log).encode()
        head = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
        self.transport.write(head + body)
        self.transport.close()


class UpstreamSide(asyncio.Protocol):
    def __init__(self, client: ClientSide) -> None:
        self.client = client

    def data_received(self, data: bytes) -> None:
        if self.client.spoils and (found := LETTER.search(data)):
            at = found.start(1)
            data = data[:at] + (b"Y" if data[at : at + 1] == b"X" else b"X") + data[at + 1 :]
            self.client.spoils = False
        self.client.transport.write(data)

    def connection_lost(self, error: Exception | None) -> None:
        self.client.transport.close()


async def serve(options: argparse.Namespace) -> None:
    log: Log = []
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: ClientSide(options, log), "127.0.0.1", 0)
    print(json.dumps({"ports": [server.sockets[0].getsockname()[1]]}), flush=True)
    await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int, help="of the upstream")
    parser.add_argument("--hold-ms", type=float, default=0.0, help="how long each request is held")
    parser.add_argument("--spoil-every", type=int, default=0, help="which answers are changed")
    uvloop.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
