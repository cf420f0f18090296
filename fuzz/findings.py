"""What was found, kept in files: one finding for each place that something comes from."""

from __future__ import annotations

import hashlib
import traceback
from pathlib import Path
from typing import Final

from fuzz.target import FINDINGS, ROOT

MAX_FINDINGS: Final = 50  # of one target in one run
MARK: Final = "FINDING "  # begins the line that tells of one


class Findings:
    def __init__(self, name: str) -> None:
        self._folder = FINDINGS / name
        self._places: set[str] = set()

    def add(self, data: bytes, exc: BaseException) -> None:
        place = place_of(exc)
        if place in self._places or len(self._places) >= MAX_FINDINGS:
            return
        self._places.add(place)
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / hashlib.sha256(place.encode()).hexdigest()[:12]
        path.with_suffix(".input").write_bytes(data)
        text = "".join(traceback.format_exception(exc))
        path.with_suffix(".txt").write_text(f"{place}\n\n{data!r}\n\n{text}")
        print(f"{MARK}{place}", flush=True)


def place_of(exc: BaseException) -> str:
    """The same for every input that runs into the same thing."""
    frames = [
        f"{Path(frame.filename).name}:{frame.name}:{frame.lineno}"
        for frame in traceback.extract_tb(exc.__traceback__)
        if frame.filename.startswith(str(ROOT)) and ".venv" not in frame.filename
    ]
    return f"{type(exc).__name__} {' '.join(frames[-3:])}"
