"""Every module has a test file at the same place."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "llm_proxy"
TESTS = ROOT / "tests"
WHOLE_PROGRAM = "end_to_end"


def _has_code(path: Path) -> bool:
    body = ast.parse(path.read_text()).body
    return any(not isinstance(node, ast.Expr | ast.ImportFrom) for node in body)


def _modules() -> list[Path]:
    return [path.relative_to(SOURCE) for path in SOURCE.rglob("*.py") if _has_code(path)]


def test_every_module_has_its_test_file() -> None:
    missing = [
        str(module)
        for module in _modules()
        if module.name not in ("__init__.py", "__main__.py") and not _test_files(module)
    ]
    assert missing == []


def _test_files(module: Path) -> list[Path]:
    """`test_x.py`, or several `test_x_….py` where one would be too long."""
    folder = TESTS / module.parent
    return [*folder.glob(f"test_{module.stem}.py"), *folder.glob(f"test_{module.stem}_*.py")]


def test_every_test_file_lies_where_its_subject_does() -> None:
    strangers = [
        str(path)
        for path in TESTS.rglob("test_*.py")
        if path.relative_to(TESTS).parts[0] != WHOLE_PROGRAM
        and not (SOURCE / path.relative_to(TESTS).parent).is_dir()
    ]
    assert strangers == []
