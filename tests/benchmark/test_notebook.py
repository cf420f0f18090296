from __future__ import annotations

from array import array

from llm_proxy.benchmark.notebook import Notebook
from llm_proxy.benchmark.plan import DIRECT, PROXIED


def test_what_was_taken_is_not_given_again() -> None:
    notebook = Notebook(3)
    notebook.samples.lane.append(DIRECT)
    notebook.note_gaps(DIRECT, array("q", [1, 2]))
    notebook.note_gaps(PROXIED, array("q", [3]))
    frame = notebook.take(17, 5)
    assert (frame.process, frame.at, frame.in_flight, len(frame.samples)) == (3, 17, 5, 1)
    assert (frame.gaps.direct.tolist(), frame.gaps.proxied.tolist()) == ([1, 2], [3])
    empty = notebook.take(18, 0)
    assert len(empty.samples) == 0 and not empty.gaps.direct
