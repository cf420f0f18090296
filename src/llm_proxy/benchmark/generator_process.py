"""`python -m llm_proxy.benchmark.generator_process NUMBER COUNT`: a generator behind two pipes."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import msgspec
import uvloop

from llm_proxy.benchmark import generator_channel as channel
from llm_proxy.benchmark.generator import Generator, tune_process
from llm_proxy.benchmark.plan import decode_plan
from llm_proxy.benchmark.samples import Frame, encode_frame
from llm_proxy.errors import LLMProxyError


class GeneratorProcess:
    """Ends with its stdin, so that no generator outlives the command."""

    def __init__(self, generator: Generator, output: asyncio.WriteTransport) -> None:
        self._generator = generator
        self._output = output
        self._run: asyncio.Task[None] | None = None

    async def serve(self, reader: asyncio.StreamReader) -> None:
        while True:
            try:
                header = await reader.readexactly(channel.HEADER_BYTES)
                kind, length = channel.unpack_header(header)
                payload = await reader.readexactly(length)
            except asyncio.IncompleteReadError:
                break
            self._obey(kind, payload)
        if self._run is not None:
            self._run.cancel()
            await asyncio.gather(self._run, return_exceptions=True)
        await self._generator.close()

    def _obey(self, kind: bytes, payload: bytes) -> None:
        if kind == channel.PLAN:
            self._prepare(payload)
        elif kind == channel.GO:
            self._run = asyncio.create_task(self._generate(int(payload)))
        elif kind == channel.STOP:
            self._generator.stop()

    def _prepare(self, payload: bytes) -> None:
        try:
            self._generator.prepare(decode_plan(payload))
        except (LLMProxyError, msgspec.MsgspecError) as exc:
            self._say(channel.FAILED, str(exc).encode())
            return
        tune_process()
        self._say(channel.READY)

    async def _generate(self, at_ns: int) -> None:
        figures = await self._generator.run(at_ns, self._send_frame)
        self._say(channel.FIGURES, msgspec.msgpack.encode(figures))

    def _send_frame(self, frame: Frame) -> None:
        self._say(channel.FRAME, encode_frame(frame))

    def _say(self, kind: bytes, payload: bytes = b"") -> None:
        self._output.write(channel.pack(kind, payload))


async def _main(process: int, processes: int) -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer)
    output, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, sys.stdout.buffer)
    generator = Generator(process=process, processes=processes)
    await GeneratorProcess(generator, output).serve(reader)


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the command says when to stop
    process, processes = (int(number) for number in sys.argv[1:3])
    uvloop.run(_main(process, processes))
    os._exit(
        0
    )  # nothing of it is needed any more; tearing down thousands of connections takes long


if __name__ == "__main__":
    main()
