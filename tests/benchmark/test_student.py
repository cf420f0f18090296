from __future__ import annotations

import pytest

from llm_proxy.benchmark.student import student_95


@pytest.mark.parametrize(
    ("degrees", "value"), [(3, 3.1824), (5, 2.5706), (9, 2.2622), (19, 2.0930), (199, 1.9720)]
)
def test_it_is_the_tabled_value(degrees: int, value: float) -> None:
    assert student_95(degrees) == pytest.approx(value, rel=0.01)
