"""Makes a target's corpus small again: the shortest inputs that together reach all there is.

Started by `fuzz.campaign` as a process of its own: `python -m fuzz.corpus TARGET [FOLDER…]`
merges the inputs of the folders into the corpus in git, and prints what it reaches as JSON.
"""

from __future__ import annotations

import hashlib
import json
import sys
from functools import partial
from pathlib import Path
from typing import Final

from fuzz.machines import MACHINES, reach
from fuzz.reach import Arc, Tracer, lines_in, lines_of
from fuzz.target import CORPUS, Target, corpus_of, load_target

MAX_BYTES: Final = 20_000  # of one target's corpus: it is kept in git
MAX_INPUTS: Final = 6_000  # looked at


def merge(name: str, folders: list[Path]) -> dict[str, int]:
    if name in MACHINES:
        return reach(name)
    target = load_target(name)
    tracer = Tracer(target.covers)
    inputs = _inputs(name, target, folders)
    chosen, reached = _choose(target, tracer, inputs)
    if folders:
        _write(name, chosen)
    all_lines = lines_of(target.covers)
    return {
        "inputs": len(chosen),
        "bytes": sum(map(len, chosen)),
        "lines_reached": len(lines_in(reached, all_lines)),
        "lines": len(all_lines),
        "arcs": len(reached),
    }


def _inputs(name: str, target: Target, folders: list[Path]) -> list[bytes]:
    paths = corpus_of(name) + [path for folder in folders for path in folder.glob("*")]
    contents = {path.read_bytes() for path in paths if path.is_file()} | set(target.seeds)
    return sorted(contents, key=lambda data: (len(data), data))[:MAX_INPUTS]


def _choose(
    target: Target, tracer: Tracer, inputs: list[bytes]
) -> tuple[list[bytes], frozenset[Arc]]:
    """Greedily, the shortest first; then without those that later ones made superfluous."""
    for data in inputs[:3]:  # caches fill
        tracer.watch(partial(target.run, data))
    reached: dict[bytes, frozenset[Arc]] = {}
    seen: set[Arc] = set()
    size = 0
    for data in inputs:
        arcs = tracer.watch(partial(target.run, data))
        if not arcs <= seen and size + len(data) <= MAX_BYTES:
            reached[data] = arcs
            seen |= arcs
            size += len(data)
    for data in list(reached):
        others = [arcs for other, arcs in reached.items() if other is not data]
        if reached[data] <= frozenset().union(*others):
            del reached[data]
    return list(reached), frozenset(seen)


def _write(name: str, chosen: list[bytes]) -> None:
    folder = CORPUS / name
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {hashlib.sha256(data).hexdigest()[:16]: data for data in chosen}
    for path in corpus_of(name):
        if path.name not in wanted:
            path.unlink()
    for digest, data in wanted.items():
        (folder / digest).write_bytes(data)


if __name__ == "__main__":
    print(json.dumps(merge(sys.argv[1], [Path(folder) for folder in sys.argv[2:]])))
