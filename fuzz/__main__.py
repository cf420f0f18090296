"""The command behind scripts/fuzz."""

from __future__ import annotations

import argparse
import json
import sys
import traceback
from pathlib import Path

from fuzz.campaign import Campaign, Result, summary, table
from fuzz.machines import MACHINES
from fuzz.target import FINDINGS, corpus_of, load_target, target_names

_QUIET_S = 15  # between two lines of progress where it isn't a terminal that shows them


def main() -> int:
    arguments = _parse()
    if arguments.list:
        print("\n".join([*target_names(), *sorted(MACHINES)]))
        return 0
    if arguments.input:
        return _replay_one(arguments.targets[0], arguments.input)
    if arguments.replay:
        return _replay(arguments.targets)
    return _fuzz(arguments)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/fuzz",
        description="Fuzzes what reads the bytes of strangers; see docs/fuzzing.md.",
        epilog="exit code: 0 nothing found, 1 something found, 2 wrong usage",
    )
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="all of them by default")
    parser.add_argument("--seconds", type=int, default=60, help="for each target (60)")
    parser.add_argument("--jobs", type=int, default=1, help="targets at a time (1)")
    parser.add_argument("--json", type=Path, default=FINDINGS / "summary.json", metavar="FILE")
    parser.add_argument("--list", action="store_true", help="names the targets")
    parser.add_argument("--replay", action="store_true", help="runs the kept corpus, nothing new")
    parser.add_argument("--input", type=Path, metavar="FILE", help="runs one input of one TARGET")
    arguments = parser.parse_args()
    unknown = set(arguments.targets) - {*target_names(), *MACHINES}
    if unknown:
        parser.error(f"no such target: {', '.join(sorted(unknown))}; --list names them")
    if arguments.input and (len(arguments.targets) != 1 or arguments.targets[0] in MACHINES):
        parser.error("--input needs one TARGET, and none that is a state machine")
    if arguments.seconds < 1 or arguments.jobs < 1:
        parser.error("--seconds and --jobs are at least 1")
    return arguments


def _replay_one(name: str, path: Path) -> int:
    load_target(name).run(path.read_bytes())
    print(f"{name}: {path} breaks nothing")
    return 0


def _replay(names: list[str]) -> int:
    count, failed = 0, 0
    for name in names or target_names():
        if name in MACHINES:
            continue
        target = load_target(name)
        inputs = {str(path): path.read_bytes() for path in corpus_of(name)}
        inputs |= {f"seed {number}": seed for number, seed in enumerate(target.seeds)}
        for where, data in inputs.items():
            count += 1
            try:
                target.run(data)
            except Exception:
                failed += 1
                print(f"{name}: {where}: {data!r}\n{traceback.format_exc()}", file=sys.stderr)
    print(f"{count} inputs, {failed} of them break something")
    return 1 if failed else 0


def _fuzz(arguments: argparse.Namespace) -> int:
    try:
        import atheris  # noqa: F401
    except ImportError:
        print("Error: atheris is missing; scripts/install dev,fuzz installs it", file=sys.stderr)
        return 1
    names = arguments.targets or [*target_names(), *sorted(MACHINES)]
    campaign = Campaign(names, seconds=arguments.seconds, jobs=arguments.jobs)
    progress = Progress()
    campaign.run(progress.show)
    progress.end()
    print("\n".join(table(campaign.results)))
    for result in campaign.results:
        for finding in result.findings:
            print(f"{result.name}: {finding}")
    found = summary(campaign.results, seconds=arguments.seconds)
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(found, indent=1) + "\n")
    if found["findings"]:
        print(f"Inputs and tracebacks are in {FINDINGS}", file=sys.stderr)
    return 1 if found["findings"] else 0


class Progress:
    """One line that renews itself on a terminal, one now and then elsewhere."""

    def __init__(self) -> None:
        self._calls = 0
        self._renews = sys.stderr.isatty()

    def show(self, results: list[Result]) -> None:
        self._calls += 1
        if not self._renews and self._calls % _QUIET_S:
            return
        ended = sum(result.has_ended for result in results)
        line = (
            f"{ended} of {len(results)} targets done, "
            f"{sum(result.executions for result in results):,} executions, "
            f"{sum(len(result.findings) for result in results)} findings"
        )
        end = "" if self._renews else "\n"
        print(f"\r{line:79}" if self._renews else line, end=end, file=sys.stderr, flush=True)

    def end(self) -> None:
        if self._renews:
            print(f"\r{'':79}\r", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
