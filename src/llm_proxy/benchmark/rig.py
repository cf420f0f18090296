"""The generator's processes, seen from the command that owns them."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from time import monotonic_ns
from types import TracebackType
from typing import Final

import msgspec

from llm_proxy.benchmark import generator_channel as channel
from llm_proxy.benchmark.plan import Closed, Plan, encode_plan
from llm_proxy.benchmark.samples import Frame, RigFigures, decode_frame, lost_process
from llm_proxy.errors import LLMProxyError

_COMMAND: Final = (sys.executable, "-P", "-m", "llm_proxy.benchmark.generator_process")
_READY_WITHIN_S: Final = 30.0
_ENDS_WITHIN_S: Final = 5.0
_HEAD_START_NS: Final = 20_000_000  # so that all processes begin at the same moment
SILENT_AT_MOST_S: Final = 10.0  # frames come ten times a second
_PIPE_BYTES: Final = 4 * 1024 * 1024


class Rig:
    """`async with Rig(2) as rig`; one run after the other, on connections that stay."""

    def __init__(self, processes: int = 1, *, silent_s: float = SILENT_AT_MOST_S) -> None:
        """A process that says nothing for `silent_s` in a run is taken for lost."""
        self._count = processes
        self._silent_s = silent_s
        self._generators: list[_Process] = []

    async def __aenter__(self) -> Rig:
        try:
            for number in range(self._count):
                self._generators.append(await _Process.start(number, self._count))
        except OSError as exc:
            await self._close()
            raise LLMProxyError(f"a generator process can't be started: {exc.strerror}") from exc
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._close()

    @property
    def pids(self) -> list[int]:
        return [one.pid for one in self._generators]

    async def run(self, plan: Plan, on_frame: Callable[[Frame], None]) -> list[RigFigures]:
        """Until the load is over or stopped; when a process is lost on the way, the others stop,
        and the figures say so. Raises LLMProxyError when the run can't begin."""
        if isinstance(plan.load, Closed) and plan.load.concurrency < self._count:
            raise LLMProxyError(
                f"{self._count} processes can't share {plan.load.concurrency} connections; "
                "raise the concurrency or use fewer processes"
            )
        encoded = encode_plan(plan)
        await asyncio.gather(*(one.prepare(encoded) for one in self._generators))
        start = monotonic_ns() + _HEAD_START_NS
        return list(
            await asyncio.gather(*(self._follow(start, on_frame, n) for n in range(self._count)))
        )

    async def _follow(
        self, start_ns: int, on_frame: Callable[[Frame], None], number: int
    ) -> RigFigures:
        try:
            return await self._generators[number].run(start_ns, on_frame, self._silent_s)
        except LLMProxyError as exc:
            self.stop()
            return lost_process(number, str(exc))

    def stop(self) -> None:
        """Ends the run early: what was measured so far is still handed over."""
        for one in self._generators:
            one.say(channel.STOP)

    async def _close(self) -> None:
        await asyncio.gather(*(one.close() for one in self._generators))
        self._generators.clear()


class _Process:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, number: int, count: int) -> _Process:
        return cls(
            await asyncio.create_subprocess_exec(
                *_COMMAND,
                str(number),
                str(count),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=_PIPE_BYTES,
                start_new_session=True,  # Ctrl-C is for the command, which then asks for the end
            )
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def say(self, kind: bytes, payload: bytes = b"") -> None:
        assert self._process.stdin is not None
        if not self._process.stdin.is_closing():  # else it is gone, and heard of elsewhere
            self._process.stdin.write(channel.pack(kind, payload))

    async def prepare(self, encoded_plan: bytes) -> None:
        self.say(channel.PLAN, encoded_plan)
        try:
            async with asyncio.timeout(_READY_WITHIN_S):
                await self._receive()
        except TimeoutError:
            raise LLMProxyError(
                f"a generator process was not ready within {_READY_WITHIN_S:g} s"
            ) from None

    async def run(
        self, start_ns: int, on_frame: Callable[[Frame], None], silent_s: float
    ) -> RigFigures:
        self.say(channel.GO, b"%d" % start_ns)
        while True:
            try:
                async with asyncio.timeout(silent_s):
                    kind, payload = await self._receive()
            except TimeoutError:
                self._process.kill()
                raise LLMProxyError(
                    f"a generator process said nothing for {silent_s:g} s and was killed"
                ) from None
            if kind == channel.FRAME:
                on_frame(decode_frame(payload))
            elif kind == channel.FIGURES:
                return msgspec.msgpack.decode(payload, type=RigFigures)

    async def _receive(self) -> tuple[bytes, bytes]:
        assert self._process.stdout is not None
        try:
            header = await self._process.stdout.readexactly(channel.HEADER_BYTES)
            kind, length = channel.unpack_header(header)
            payload = await self._process.stdout.readexactly(length)
        except asyncio.IncompleteReadError:
            raise LLMProxyError(
                f"a generator process ended by itself (exit code {await self._process.wait()})"
            ) from None
        if kind == channel.FAILED:
            raise LLMProxyError(payload.decode())
        return kind, payload

    async def close(self) -> None:
        """It ends with its stdin, or is ended."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(_ENDS_WITHIN_S):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
