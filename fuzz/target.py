"""What a target is, and the list of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).parents[1]
CORPUS = ROOT / "fuzz" / "corpus"
FINDINGS = ROOT / "fuzz" / "findings"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    covers: tuple[str, ...]  # modules whose lines it is to reach
    run: Callable[[bytes], None]  # raises for an input that breaks the property
    words: tuple[bytes, ...] = ()  # for the mutator
    max_bytes: int = 2048  # of an input
    seeds: tuple[bytes, ...] = ()  # beside the corpus


def target_names() -> list[str]:
    modules = (Path(__file__).parent / "targets").glob("*.py")
    return sorted(path.stem.replace("_", "-") for path in modules if path.stem != "__init__")


def load_target(name: str) -> Target:
    target = import_module(f"fuzz.targets.{name.replace('-', '_')}").TARGET
    assert isinstance(target, Target)
    return target


def corpus_of(name: str) -> list[Path]:
    return sorted((CORPUS / name).glob("*"))


class Violated(AssertionError):
    """An input breaks what must hold for every one."""


def must(claim: object, sentence: str) -> None:
    if not claim:
        raise Violated(sentence)
