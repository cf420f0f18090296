"""Runs one target under atheris (libFuzzer) in this process; started by `fuzz.campaign`.

Whatever a target raises is kept as a finding, one for each place it comes from, and the run goes
on. Only a hang or a crash of the interpreter ends it early.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Final

import atheris

from fuzz.findings import Findings
from fuzz.target import FINDINGS, Target, corpus_of, load_target

HANG_S: Final = 20  # of one input
MEMORY_MIB: Final = 1024
# What guides the mutator, beside the target's own modules.
INSTRUMENTED: Final = ["llm_proxy", "fuzz.targets", "yaml", "dotenv", "email", "json"]


def run(name: str, folder: Path, seconds: int) -> None:
    """`folder` collects what reaches something new. Never returns: libFuzzer ends the process."""
    with atheris.instrument_imports(include=INSTRUMENTED):
        target = load_target(name)
    findings = Findings(name)

    def test_one_input(data: bytes) -> None:
        try:
            target.run(data)
        except Exception as exc:
            findings.add(data, exc)

    for number, seed in enumerate(target.seeds):
        (folder / f"seed-{number}").write_bytes(seed)
    for path in corpus_of(name):
        (folder / path.name).write_bytes(path.read_bytes())
    hangs = FINDINGS / name
    hangs.mkdir(parents=True, exist_ok=True)
    atheris.Setup(
        [
            "fuzz",
            str(folder),
            f"-dict={_dictionary(target, folder)}",
            f"-max_total_time={seconds}",
            f"-max_len={target.max_bytes}",
            f"-timeout={HANG_S}",
            f"-rss_limit_mb={MEMORY_MIB}",
            f"-artifact_prefix={hangs}/",
            "-print_final_stats=1",
        ],
        test_one_input,
    )
    atheris.Fuzz()


def _dictionary(target: Target, folder: Path) -> Path:
    path = Path(tempfile.mkdtemp(prefix="words-", dir=folder.parent)) / "words"
    lines = ["".join(f"\\x{byte:02x}" for byte in word) for word in target.words]
    path.write_text("".join(f'"{line}"\n' for line in lines))
    return path


if __name__ == "__main__":
    run(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
