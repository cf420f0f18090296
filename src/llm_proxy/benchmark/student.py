"""How much wider an interval must be when its error is estimated from few figures."""

from __future__ import annotations

from typing import Final

NORMAL_95: Final = 1.959964  # half a 95 % interval of the normal distribution, in deviations


def student_95(degrees: int) -> float:
    """The same of Student's t: Abramowitz and Stegun 26.7.5, right to 0.5 % from three degrees."""
    x = NORMAL_95
    first = (x**3 + x) / 4
    second = (5 * x**5 + 16 * x**3 + 3 * x) / 96
    third = (3 * x**7 + 19 * x**5 + 17 * x**3 - 15 * x) / 384
    return x + first / degrees + second / degrees**2 + third / degrees**3
