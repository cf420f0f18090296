from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.benchmark.samples import (
    Frame,
    Samples,
    decode_frame,
    encode_frame,
    new_gaps,
    new_samples,
)


@given(st.lists(st.integers(min_value=-1, max_value=2**62), max_size=50))
def test_a_frame_survives_its_journey(values: list[int]) -> None:
    frame = Frame(process=1, at=2, in_flight=3, samples=new_samples(), gaps=new_gaps())
    for name in Samples.__struct_fields__:
        column = getattr(frame.samples, name)
        column.extend(value % 200 if column.typecode != "q" else value for value in values)
    frame.gaps.direct.extend(values)
    assert decode_frame(encode_frame(frame)) == frame
    assert len(frame.samples) == len(values)


def test_columns_hold_what_they_are_for() -> None:
    samples = new_samples()
    samples.digest.append(2**64 - 1)
    samples.service.append(-1)
    with pytest.raises(OverflowError):
        samples.status.append(-1)
