"""The kept corpus of scripts/fuzz breaks nothing, and the command behind it says so."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
MAX_CORPUS_BYTES = 300_000


def fuzz(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fuzz", *arguments], cwd=ROOT, capture_output=True, text=True
    )


def test_kept_inputs_break_nothing() -> None:
    done = fuzz("--replay")
    assert (done.returncode, done.stderr) == (0, "")


def test_one_input_is_run_by_itself(tmp_path: Path) -> None:
    path = tmp_path / "input"
    path.write_bytes(b"\x000\r\n\r\n")
    done = fuzz("chunked", "--input", str(path))
    assert (done.returncode, done.stdout) == (0, f"chunked: {path} breaks nothing\n")


def test_unknown_target_is_wrong_usage() -> None:
    done = fuzz("nothing-like-it")
    assert done.returncode == 2
    assert "no such target: nothing-like-it" in done.stderr


def test_corpus_stays_small() -> None:
    files = [path for path in (ROOT / "fuzz" / "corpus").rglob("*") if path.is_file()]
    assert 0 < sum(path.stat().st_size for path in files) <= MAX_CORPUS_BYTES


def test_every_target_has_a_corpus() -> None:
    named = {
        path.stem.replace("_", "-")
        for path in (ROOT / "fuzz" / "targets").glob("*.py")
        if path.stem != "__init__"
    }
    assert named == {path.name for path in (ROOT / "fuzz" / "corpus").iterdir()}
