from __future__ import annotations

import pytest

from llm_proxy.server.supervisor_watch import SILENCE_S, SupervisorWatch


class Told:
    """What a worker's snapshots were told last."""

    def __init__(self) -> None:
        self.state = "nothing"

    def store_is_lost(self, grace_s: float) -> None:
        self.state = f"lost for {grace_s:g} s"

    def store_is_back(self) -> None:
        self.state = "back"


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def watch(told: Told) -> SupervisorWatch:
    return SupervisorWatch(told, grace_s=60.0)


def test_says_what_the_supervisor_says(watch: SupervisorWatch, told: Told) -> None:
    watch.heard(1.0, is_lost=True)
    assert told.state == "lost for 60 s"
    watch.heard(1.5, is_lost=False)
    assert told.state == "back"


def test_silence_passes_for_a_lost_store_until_it_ends(
    watch: SupervisorWatch, told: Told, caplog: pytest.LogCaptureFixture
) -> None:
    watch.heard(1.0, is_lost=False)
    watch.check(1.0 + SILENCE_S - 0.1)
    assert told.state == "back"
    for late in (0.0, 0.25, 10.0):
        watch.check(1.0 + SILENCE_S + late)
    assert told.state == "lost for 60 s"
    assert caplog.text.count("the supervisor is silent") == 1
    watch.heard(100.0, is_lost=False)
    assert told.state == "back"


def test_nothing_is_expected_before_the_worker_serves(watch: SupervisorWatch, told: Told) -> None:
    watch.check(1e6)
    assert told.state == "nothing"
    watch.begin(1e6)
    watch.check(1e6 + SILENCE_S)
    assert told.state == "lost for 60 s"
