from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args, get_origin, get_type_hints

import msgspec
import pytest

from llm_proxy.benchmark import report

DOCUMENT = Path(__file__).parents[2] / "docs" / "benchmark-report.md"


STRUCTS = [
    value
    for value in vars(report).values()
    if isinstance(value, type) and issubclass(value, msgspec.Struct)
]


def _section(name: str) -> str:
    """The document's part of a struct, with those that it says it holds too."""
    return DOCUMENT.read_text("utf-8").split(f"\n## {name}\n", 1)[1].split("\n## ", 1)[0]


@pytest.mark.parametrize("struct", STRUCTS, ids=lambda struct: struct.__name__)
def test_every_field_is_documented_in_the_section_of_its_struct(
    struct: type[msgspec.Struct],
) -> None:
    bases = [base for base in struct.__mro__[1:] if base in STRUCTS]
    inherited = {name for base in bases for name in base.__struct_encode_fields__}
    section = _section(struct.__name__)
    own = [name for name in struct.__struct_encode_fields__ if name not in inherited]
    assert [name for name in own if f"| `{name}` |" not in section] == []
    assert [base.__name__ for base in bases if f"`{base.__name__}`" not in section] == []


@pytest.mark.parametrize("struct", STRUCTS, ids=lambda struct: struct.__name__)
def test_no_field_is_documented_that_does_not_exist(struct: type[msgspec.Struct]) -> None:
    rows = [line for line in _section(struct.__name__).splitlines() if line.startswith("| `")]
    documented = {line.split("`")[1] for line in rows}
    assert documented <= set(struct.__struct_encode_fields__)


def _words(struct: type[msgspec.Struct]) -> dict[str, tuple[str, ...]]:
    """By field: the words that it may be."""
    hints = get_type_hints(struct)
    names = zip(struct.__struct_fields__, struct.__struct_encode_fields__, strict=True)
    return {
        name: get_args(hints[field]) for field, name in names if get_origin(hints[field]) is Literal
    }


@pytest.mark.parametrize("struct", STRUCTS, ids=lambda struct: struct.__name__)
def test_every_word_that_a_field_may_be_is_documented(struct: type[msgspec.Struct]) -> None:
    lines = _section(struct.__name__).splitlines()
    for name, words in _words(struct).items():
        (row,) = [line for line in lines if line.startswith(f"| `{name}` |")]
        assert [word for word in words if f"`{word}`" not in row] == []


def test_the_schema_version_is_the_documented_one() -> None:
    assert f"schema version {report.SCHEMA_VERSION}" in DOCUMENT.read_text("utf-8")
