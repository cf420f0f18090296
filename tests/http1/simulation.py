"""Connections without a network and a clock that stands still, for state machines.

A `Link` is both ends of one connection: the transport that a protocol gets, which behaves as
uvloop's does, and the peer, which a test plays. Nothing moves but in `SimulatedLoop.settle`.
"""

from __future__ import annotations

import asyncio
import selectors
import socket
import struct
from collections.abc import Callable
from typing import Any, Final

from llm_proxy.http1.timers import Timers, Watched

MAX_PIECE: Final = 65536  # bytes that one read of a transport brings
_MAX_PIECES: Final = 40  # that a peer's bytes are cut into
_MAX_TURNS: Final = 20_000  # of the loop until it must come to rest
_ESTABLISHED, _CLOSED, _CLOSE_WAIT = 1, 7, 8  # TCP_INFO


class _IdleSelector(selectors.SelectSelector):
    """Waits for nothing: a loop with nothing to do is stopped."""

    def __init__(self) -> None:
        super().__init__()
        self.turns = 0
        self.stop: Callable[[], None] = lambda: None

    def select(self, timeout: float | None = None) -> list[Any]:
        self.turns += 1
        if timeout is None or timeout > 0:
            self.stop()
        assert self.turns < _MAX_TURNS, "the loop never comes to rest"
        return []


class SimulatedLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._selector_without_waits = _IdleSelector()
        self.now = 1000.0
        super().__init__(self._selector_without_waits)
        self._selector_without_waits.stop = self.stop
        self.dials: list[Dial] = []
        self.links: list[Link] = []  # that came of dials
        self.errors: list[dict[str, Any]] = []  # what came out of callbacks and tasks
        self.set_exception_handler(lambda _, context: self.errors.append(context))

    def time(self) -> float:
        return self.now

    def settle(self) -> None:
        """Runs until nothing is left to do at this moment."""
        self._selector_without_waits.turns = 0
        self.run_forever()

    def do(self, action: Callable[..., object], *args: object) -> None:
        """On the loop, as everything a protocol hears."""
        self.call_soon(action, *args)
        self.settle()

    def advance(self, seconds: float) -> None:
        self.now += seconds
        self.settle()

    async def create_connection(self, protocol_factory: Any, *args: Any, **options: Any) -> Any:
        """Waits until the test answers the dial."""
        sock = options.get("sock")
        if sock is not None:
            sock.close()  # `sock_connect` was the dial
        else:
            await self._dial()
        link = Link(self, protocol_factory())
        self.links.append(link)
        made = self.create_future()
        self.call_soon(link.open, made)
        await made
        return link, link.protocol

    async def create_unix_connection(self, protocol_factory: Any, *args: Any, **opts: Any) -> Any:
        return await self.create_connection(protocol_factory)

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        await self._dial()

    async def _dial(self) -> None:
        dial = Dial(self)
        self.dials.append(dial)
        try:
            await dial.outcome
        finally:
            self.dials.remove(dial)


class Dial:
    """A connection being opened."""

    def __init__(self, loop: SimulatedLoop) -> None:
        self.outcome: asyncio.Future[None] = loop.create_future()

    def accept(self) -> None:
        if not self.outcome.done():
            self.outcome.set_result(None)

    def refuse(self) -> None:
        if not self.outcome.done():
            self.outcome.set_exception(ConnectionRefusedError())


class _Socket:
    """What the kernel knows of a link."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self.resets_on_close = False

    def getsockopt(self, level: int, option: int, size: int = 0) -> bytes:
        """Linux's struct tcp_info: the state, what was acknowledged and what was sent."""
        link = self._link
        info = bytearray(216)
        info[0] = _CLOSED if link.is_reset else _CLOSE_WAIT if link.has_left else _ESTABLISHED
        struct.pack_into("=Q", info, 120, 1 + len(link.received))
        struct.pack_into("=Q", info, 200, len(link.received) + link.lost)
        return bytes(info[:size])

    def setsockopt(self, level: int, option: int, value: object) -> None:
        if option == socket.SO_LINGER:
            self.resets_on_close = True


class Link(asyncio.Transport):
    def __init__(self, loop: SimulatedLoop, protocol: Any) -> None:
        super().__init__()
        self.loop = loop
        self.protocol = protocol
        # The peer's side.
        self.received = bytearray()
        self.room: float = float("inf")  # bytes the peer's kernel still takes
        self.is_deaf = False  # what is sent gets lost on the way
        self.lost = 0
        self.piece = MAX_PIECE  # bytes that one read brings
        self.has_left = False  # sent its FIN
        self.is_reset = False
        self.end = ""  # as the peer saw it: "", "fin" or "reset"
        self._takes_no_more = False  # closed, not only half: a write is answered with a reset
        self._incoming = bytearray()
        self.has_read_fin = False
        # The transport's.
        self.unsent = bytearray()
        self.dropped = 0  # bytes that were not sent before the end
        self.is_closed = False
        self._socket = _Socket(self)
        self._high, self._low = 65536, 16384
        self._is_reading = False
        self._is_closing = False
        self._is_ending = False  # connection_lost is on its way
        self._has_written_eof = False
        self._is_paused = False
        self._has_flush = False

    def open(self, made: asyncio.Future[None] | None = None) -> None:
        self.protocol.connection_made(self)
        if made is not None and not made.done():
            made.set_result(None)
        if not self._is_closing:
            self.resume_reading()

    # The peer's side: called between two settles.

    @property
    def waiting_bytes(self) -> int:
        """Sent by the peer and not read."""
        return len(self._incoming)

    def send(self, data: bytes) -> None:
        if not (self.has_left or self.is_reset):
            self._incoming += data
            self.loop.do(self._read)

    def half_close(self) -> None:
        self.has_left = True
        self.loop.do(self._read)

    def hang_up(self) -> None:
        self._takes_no_more = True
        self.half_close()

    def reset(self) -> None:
        self.is_reset = True
        self._incoming.clear()
        self.loop.do(self._read)

    def stop_reading(self, room: int) -> None:
        self.room = room

    def read_on(self) -> None:
        self.room = float("inf")
        self.loop.do(self._flush)

    def _read(self) -> None:
        """One read; the next one comes in the next turn of the loop."""
        if not self._is_reading or self._is_closing:
            return
        if self.is_reset:
            self._force_close(ConnectionResetError())
        elif self._incoming:
            size = max(self.piece, len(self._incoming) // _MAX_PIECES)
            size = min(size, MAX_PIECE)
            data = bytes(self._incoming[:size])
            del self._incoming[:size]
            self.loop.call_soon(self._read)
            self.protocol.data_received(data)
        elif self.has_left and not self.has_read_fin:
            self.has_read_fin = True
            if not self.protocol.eof_received():
                self.close()

    # The transport's side, as in uvloop's stream.pyx and basetransport.pyx.

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"socket": self._socket, "peername": ("192.0.2.7", 4711)}.get(name, default)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        assert high is not None
        self._high, self._low = high, high // 4

    def get_write_buffer_size(self) -> int:
        return len(self.unsent)

    def is_closing(self) -> bool:
        return self._is_closing

    def can_write_eof(self) -> bool:
        return True

    def write(self, data: Any) -> None:
        self._must_be_alive()
        if self._has_written_eof:
            raise RuntimeError("Cannot call write() after write_eof()")
        if not data or self._is_ending:
            return
        if self.is_reset or self._takes_no_more:
            self.is_reset = True
            self._force_close(BrokenPipeError())
            return
        self.unsent += data
        self._send()
        if len(self.unsent) > self._high and not self._is_paused:
            self._is_paused = True
            self.protocol.pause_writing()

    def _send(self) -> None:
        size = int(min(self.room, len(self.unsent)))
        if self.is_deaf:
            self.lost += size
        else:
            self.received += self.unsent[:size]
        del self.unsent[:size]
        self.room -= size

    def _flush(self) -> None:
        """The peer reads again."""
        if self.is_closed or self._is_ending or self.is_reset:
            return
        self._send()
        if self._is_paused and len(self.unsent) <= self._low:
            self._is_paused = False
            self.protocol.resume_writing()
        if not self.unsent:
            if self._is_closing and not self._is_ending:
                self._schedule_end(None)
            elif self._has_written_eof:
                self.end = self.end or "fin"

    def write_eof(self) -> None:
        self._must_be_alive()
        self._has_written_eof = True
        if not self.unsent:
            self.end = self.end or "fin"

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def pause_reading(self) -> None:
        self._is_reading = False

    def resume_reading(self) -> None:
        if not self._is_reading and not self._is_closing:
            self._must_be_alive()
            self._is_reading = True
            self.loop.call_soon(self._read)

    @property
    def is_reading_stopped(self) -> bool:
        return not self._is_reading

    def close(self) -> None:
        if self._is_closing:
            return
        self._is_closing = True
        self._is_reading = False
        if not self.unsent:
            self._schedule_end(None)

    def abort(self) -> None:
        self._force_close(None)

    def _force_close(self, exc: Exception | None) -> None:
        if not self._is_ending:
            self._is_closing = True
            self._is_reading = False
            self._schedule_end(exc)

    def _schedule_end(self, exc: Exception | None) -> None:
        self._is_ending = True
        self.loop.call_soon(self._end, exc)

    def _end(self, exc: Exception | None) -> None:
        try:
            self.protocol.connection_lost(exc)
        finally:
            self.is_closed = True
            self.dropped = len(self.unsent)
            self.unsent.clear()
            self.end = self.end or ("reset" if self._socket.resets_on_close else "fin")

    def _must_be_alive(self) -> None:
        if self.is_closed:
            raise RuntimeError("unable to perform operation; the handler is closed")


class SimulatedTimers(Timers):
    """Ticks when the test says so; what it watches can be counted."""

    def __init__(self, loop: SimulatedLoop) -> None:
        super().__init__(loop)
        self.simulated = loop

    @property
    def watched(self) -> set[Watched]:
        return self._watched

    def watch(self, thing: Watched) -> None:
        self._watched.add(thing)

    def advance(self, seconds: float) -> None:
        """One tick, this much later."""
        self.simulated.now += seconds
        self.now = self.simulated.now
        self.simulated.do(self._check_all)

    def _check_all(self) -> None:
        for thing in tuple(self._watched):
            thing.check(self.now)
