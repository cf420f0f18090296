from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from llm_proxy.benchmark.live import Live
from llm_proxy.benchmark.plan import Closed, Plan, Target, Workload
from llm_proxy.benchmark.samples import Frame
from llm_proxy.benchmark.session import Course
from llm_proxy.cli.benchmark_run import interrupted_by_termination, run_session
from llm_proxy.secrets import Secret
from tests.end_to_end.mock_thread import MockThread


class SignallingView:
    """Signals this process each time it is shown something, so many times."""

    def __init__(self, *signals: signal.Signals) -> None:
        self.phases: list[str] = []
        self._signals = list(signals)

    def phase(
        self, text: str, *, total_s: float | None = None, total_requests: int | None = None
    ) -> None:
        self.phases.append(text)

    def update(self, live: Live) -> None:
        while self._signals:
            os.kill(os.getpid(), self._signals.pop(0))


@pytest.fixture(scope="module")
def mock() -> Iterator[MockThread]:
    mock = MockThread()
    yield mock
    mock.close()


def plan_for(mock: MockThread, load: Closed) -> Plan:
    target = Target(base_url=f"http://{mock.address}", keys=(Secret("k"),))
    models = Workload(method="GET", endpoint="/v1/models")
    return Plan(targets=(target,), workload=models, load=load)


def endless(mock: MockThread) -> Plan:
    return plan_for(mock, Closed(concurrency=1, duration_s=600))


def test_session_runs_to_its_end(mock: MockThread) -> None:
    frames: list[Frame] = []
    view = SignallingView()
    measured = run_session(
        plan_for(mock, Closed(concurrency=2, requests=30)),
        Course(),
        processes=2,
        view=view,
        on_frame=lambda frame, _run: frames.append(frame),
    )
    assert not measured.interrupted
    assert measured.results.side.requests == 30
    assert sum(len(frame.samples) for frame in frames) == 30
    assert view.phases == ["running"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_ends_the_run_with_what_it_measured(
    number: signal.Signals, mock: MockThread
) -> None:
    measured = run_session(endless(mock), Course(), processes=1, view=SignallingView(number))
    assert measured.interrupted
    assert measured.results.side.requests > 0


def test_signal_in_the_warm_up_leaves_nothing(mock: MockThread) -> None:
    view = SignallingView(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run_session(endless(mock), Course(warm_up_s=600), processes=1, view=view)
    assert view.phases == ["warm-up"]


def test_second_signal_ends_at_once(mock: MockThread) -> None:
    class Impatient(SignallingView):
        """The second signal comes as soon as the first one was handled."""

        def phase(
            self, text: str, *, total_s: float | None = None, total_requests: int | None = None
        ) -> None:
            super().phase(text)
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt):
        run_session(endless(mock), Course(repeats=3), processes=1, view=Impatient())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_termination_outside_of_the_run_is_an_interruption(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), interrupted_by_termination():
        signal.raise_signal(number)
    assert signal.getsignal(number) is before


def test_hang_up_that_is_ignored_stays_so(mock: MockThread) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interrupted_by_termination():
            measured = run_session(
                plan_for(mock, Closed(concurrency=1, duration_s=0.5)),
                Course(),
                processes=1,
                view=SignallingView(signal.SIGHUP),
            )
    finally:
        signal.signal(signal.SIGHUP, before)
    assert not measured.interrupted
