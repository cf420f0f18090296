"""Which lines of its modules a target reaches, by the interpreter's own tracing."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from importlib import import_module
from types import CodeType, FrameType
from typing import Any

Arc = tuple[str, int, int, int]  # file, the line before, the line, how often: 1, 2, 3-4, 5-8 …
Line = tuple[str, int]


def lines_of(modules: tuple[str, ...]) -> set[Line]:
    """Lines inside functions; the others run at import."""
    found: set[Line] = set()
    for name in modules:
        path = import_module(name).__file__
        assert path is not None
        with open(path, encoding="utf-8") as file:  # noqa: PTH123
            top = compile(file.read(), path, "exec")
        for code in _functions(top, is_function=False):
            found |= {
                (path, line)
                for _, _, line in code.co_lines()
                if line is not None and line != code.co_firstlineno
            }
    return found


def _functions(code: CodeType, *, is_function: bool) -> list[CodeType]:
    inner = [one for one in code.co_consts if isinstance(one, CodeType)]
    found = [code] if is_function else []
    for one in inner:
        # A class body is no function: it has no optimised locals.
        found += _functions(one, is_function=bool(one.co_flags & 0x02))
    return found


class Tracer:
    """Arcs between lines of some modules, taken by whatever runs under `watch`."""

    def __init__(self, modules: tuple[str, ...]) -> None:
        self._files = {import_module(name).__file__ for name in modules}
        self._counts: Counter[tuple[str, int, int]] = Counter()

    def watch(self, action: Callable[[], object]) -> frozenset[Arc]:
        """The arcs that it took; what it raises is ignored."""
        self._counts.clear()
        sys.settrace(self._enter)
        try:
            action()
        except Exception:
            pass
        finally:
            sys.settrace(None)
        return frozenset((*arc, (n - 1).bit_length()) for arc, n in self._counts.items())

    def _enter(self, frame: FrameType, event: str, argument: object) -> Any:
        path = frame.f_code.co_filename
        if path not in self._files:
            return None
        counts = self._counts
        before = 0

        def step(frame: FrameType, event: str, argument: object) -> Any:
            nonlocal before
            if event == "line":
                counts[path, before, frame.f_lineno] += 1
                before = frame.f_lineno
            return step

        return step


def lines_in(arcs: frozenset[Arc] | set[Arc], within: set[Line]) -> set[Line]:
    return {(path, line) for path, _, line, _ in arcs} & within
