"""One gateway worker process, as the supervisor sees it: started, told, asked, ended."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

import msgspec

from llm_proxy.errors import LLMProxyError
from llm_proxy.measurements import Snapshot
from llm_proxy.server.channel import (
    Acknowledge,
    AskLimits,
    Collect,
    Configure,
    Drain,
    Failed,
    FromWorker,
    Invalidate,
    LimitsState,
    Measured,
    Ready,
    Refused,
    Serve,
    ShareLimits,
    StoreState,
    ToWorker,
    WorkerConfig,
    decode_from_worker,
    encode,
)
from llm_proxy.server.child_process import (
    ChildProcess,
    Started,
    describe_exit,
    start_with_channel,
)
from llm_proxy.server.drain import IDLE_GRACE_S
from llm_proxy.server.limit_authority import Authority
from llm_proxy.server.limit_desk import LimitDesk
from llm_proxy.server.tally import Tally

logger = logging.getLogger(__name__)

READY_TIMEOUT_S = 15.0


class WorkerProcess(ChildProcess):
    def __init__(
        self,
        started: Started,
        *,
        ready_timeout_s: float,
        tally: Tally,
        on_exit: Callable[[], None],
        authority: Authority | None,
        holder: str,
    ) -> None:
        super().__init__(started)
        self._ready_timeout_s = ready_timeout_s
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._acknowledgements: dict[int, asyncio.Future[bool]] = {}
        self._asked = self._answered = 0  # sequences of Collect and Measured
        self._measured = asyncio.Event()
        self._tally = tally
        self._on_exit = on_exit
        holder = holder or f"worker-{self.pid}"
        self._limits: LimitDesk | None = None
        if authority is not None:
            self._limits = LimitDesk(authority, holder=holder, answer=self._send)
        self._has_shared = asyncio.Event()
        self.snapshot = Snapshot()
        tally.add(self)
        self._listening = asyncio.create_task(self._listen(), name=f"worker {self.pid}")
        self._may_serve = False
        self.started_at = time.time()

    @classmethod
    async def launch(
        cls,
        command: Sequence[str],
        *,
        listeners: Sequence[socket.socket],
        config: WorkerConfig,
        ready_timeout_s: float = READY_TIMEOUT_S,
        tally: Tally | None = None,
        on_exit: Callable[[], None] = lambda: None,
        authority: Authority | None = None,
    ) -> WorkerProcess:
        """`tally` is that of the server whose numbers this worker's are part of.

        `on_exit` is called when the process is gone; `authority` answers what it asks of limits.
        """
        numbers = [listener.fileno() for listener in listeners]
        listen = [word for number in numbers for word in ("--listen", str(number))]
        started = await start_with_channel([*command, *listen], "--channel", descriptors=numbers)
        worker = cls(
            started,
            ready_timeout_s=ready_timeout_s,
            tally=tally or Tally(),
            on_exit=on_exit,
            authority=authority,
            holder=config.holder,
        )
        worker._send(Configure(config))
        return worker

    async def wait_until_ready(self) -> None:
        try:
            async with asyncio.timeout(self._ready_timeout_s):
                await self._ready
        except TimeoutError as exc:
            raise LLMProxyError(
                f"a gateway worker was not ready within {self._ready_timeout_s:g} s; see the log"
            ) from exc

    async def invalidate(self, message: Invalidate, *, timeout_s: float) -> bool:
        """Whether the worker said in time that it obeys, or has exited."""
        if self._listening.done():
            return True
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._acknowledgements[message.sequence] = answer
        self._send(message)
        try:
            async with asyncio.timeout(timeout_s):
                return await answer
        except TimeoutError:
            return False
        finally:
            del self._acknowledgements[message.sequence]

    async def measure(self, *, timeout_s: float) -> None:
        """Brings `snapshot` up to date, unless the worker doesn't answer in time."""
        if not self._ready.done() or self._listening.done() or self._asked != self._answered:
            return  # it can't answer yet or any more, or owes an answer still
        self._asked += 1
        self._measured.clear()
        self._send(Collect(self._asked))
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._measured.wait()

    async def share_limits(self, sharers: int, *, timeout_s: float) -> None:
        """When it returns its counts are the authority's too, unless that takes too long."""
        if self._limits is None or self._listening.done():
            return
        self._send(ShareLimits(sharers))
        try:
            async with asyncio.timeout(timeout_s):
                await self._has_shared.wait()
        except TimeoutError:
            logger.error("worker %d keeps its counts of limits to itself", self.pid)

    def serve(self) -> None:
        """From now on it accepts connections."""
        if not self._may_serve:
            self._may_serve = True
            self._send(Serve())

    def tell_store_state(self, *, is_lost: bool) -> None:
        self._send(StoreState(is_lost))

    def drain(self, timeout_s: float, *, idle_grace_s: float = IDLE_GRACE_S) -> None:
        self._send(Drain(timeout_s, idle_grace_s))

    async def wait(self) -> int:
        """Until all it said is handled, too."""
        await self._listening
        return await super().wait()

    def _send(self, message: ToWorker) -> None:
        if not self._writer.is_closing():
            self._writer.write(encode(message))

    async def _listen(self) -> None:
        """Handles what the worker says until it closes the channel."""
        try:
            while line := await self._reader.readline():
                self._handle(decode_from_worker(line))
        except ConnectionError:
            pass  # as good as the end
        except (ValueError, msgspec.DecodeError) as exc:
            logger.error("worker %d broke the channel's rules (%s); killing it", self.pid, exc)
            self.kill()
        code = await self._process.wait()
        if not self._ready.done():
            self._fail(f"a gateway worker {describe_exit(code)} before it was ready; see the log")
        self._measured.set()
        self._has_shared.set()
        self._tally.retire(self)
        self._on_exit()
        if self._limits is not None:
            await self._limits.close()
        for answer in self._acknowledgements.values():
            if not answer.done():
                answer.set_result(True)

    def _handle(self, message: FromWorker) -> None:
        match message:
            case Ready() if not self._ready.done():
                self._ready.set_result(None)
            case Failed(message=reason) if not self._ready.done():
                self._fail(f"a gateway worker did not start: {reason}")
            case Acknowledge(sequence=sequence) if sequence in self._acknowledgements:
                answer = self._acknowledgements[sequence]
                if not answer.done():
                    answer.set_result(True)
            case Refused():
                self._tally.on_refused(message)
            case LimitsState() if self._limits is not None:
                self._limits.adopt(message)
                self._has_shared.set()
            case AskLimits() if self._limits is not None:
                self._limits.put(message)
            case Measured(sequence=sequence, snapshot=snapshot):
                self.snapshot = snapshot
                if sequence == self._asked:
                    self._answered = sequence
                    self._measured.set()

    def _fail(self, reason: str) -> None:
        self._ready.set_exception(LLMProxyError(reason))
        self._ready.exception()  # it may be that nobody waits for it any more
