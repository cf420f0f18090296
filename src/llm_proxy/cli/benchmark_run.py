"""Runs a session with its rig, its live view and the signals that end it early."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llm_proxy.benchmark.goodput import GoodputLimit
    from llm_proxy.benchmark.mock_watch import MockWatch
    from llm_proxy.benchmark.plan import Plan
    from llm_proxy.benchmark.samples import Frame
    from llm_proxy.benchmark.session import Course, Measured, Session, Usage, View


def run_session(
    plan: Plan,
    course: Course,
    *,
    processes: int,
    view: View,
    usage: Usage | None = None,
    mock: MockWatch | None = None,
    on_frame: Callable[[Frame, int], None] | None = None,
    goodput: Sequence[GoodputLimit] = (),
) -> Measured:
    """Raises KeyboardInterrupt when it was ended before there was anything to report."""
    import uvloop

    from llm_proxy.benchmark.rig import Rig
    from llm_proxy.benchmark.session import Interrupted, Session

    async def run() -> Measured:
        async with Rig(processes) as rig:
            session = Session(rig, view, usage=usage, mock=mock, on_frame=on_frame, goodput=goodput)
            with _ended_by_signals(session):
                return await session.run(plan, course)

    try:
        return uvloop.run(run())
    except (Interrupted, asyncio.CancelledError):
        raise KeyboardInterrupt from None


@contextmanager
def _ended_by_signals(session: Session) -> Iterator[None]:
    """The first one ends the run and leaves the report; another one ends it all."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    is_asked = False

    def end() -> None:
        nonlocal is_asked
        if is_asked:
            task.cancel()
        is_asked = True
        session.stop()

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, *_terminating())}
    for number in before:
        loop.add_signal_handler(number, end)
    try:
        yield
    finally:
        for number in before:
            loop.remove_signal_handler(number)
            signal.signal(number, before[number])


@contextmanager
def interrupted_by_termination() -> Iterator[None]:
    """SIGTERM is as Ctrl-C outside of the run, so that what was started is ended in order."""
    before = {number: signal.getsignal(number) for number in _terminating()}
    for number in before:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _terminating() -> tuple[signal.Signals, ...]:
    """With that of a terminal that was closed, unless `nohup` ignores it."""
    is_ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return (signal.SIGTERM,) if is_ignored else (signal.SIGTERM, signal.SIGHUP)
