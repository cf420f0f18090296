"""How long the gateway takes for next to nothing while the soak runs; prints JSON when stdin ends.

    soak_probe.py HOST PORT

A request that its head alone refuses, on a kept connection, forty times a second: its answer waits
for the worker's loop and for nothing else. In a process of its own, because the soak's is busy.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import uvloop

EVERY_S = 0.025


async def main(host: str, port: str) -> None:
    loop = asyncio.get_running_loop()
    stdin = loop.run_in_executor(None, sys.stdin.read)
    times: list[float] = []
    reader, writer = await asyncio.open_connection(host, int(port))
    while not stdin.done():
        await asyncio.sleep(EVERY_S)
        begin = time.perf_counter()
        writer.write(
            b"PUT /v1/files HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: probe-%d\r\n\r\n"
            % len(times)
        )
        head = await reader.readuntil(b"\r\n\r\n")
        times.append(time.perf_counter() - begin)
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        await reader.readexactly(int(length))
    writer.close()
    times.sort()
    figures = {"requests": len(times), "p50_ms": times[len(times) // 2] * 1e3}
    print(json.dumps(figures | {"p99_ms": times[len(times) * 99 // 100] * 1e3}))


uvloop.run(main(*sys.argv[1:]))
