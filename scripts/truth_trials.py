"""Each trial lets `llm-proxy benchmark` loose on a known behaviour and judges its report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from statistics import median
from urllib.parse import urlsplit

from bench_runs import Report, direct_to, mock, read_log, run_benchmark, run_with_samples, truth
from truth_expectations import (
    Finding,
    Jitter,
    count_at_least,
    count_at_most,
    count_within,
    equal,
    frozen_count,
    frozen_percentile,
    match_jitter,
    match_log,
    within,
)

NO_WARM_UP = ("--warm-up", "0s")  # each request of the upstream's log is one of the report
ANY_ERRORS = ("--max-error-rate", "100%")
SLACK_MS = 5.0  # what sockets, wake-ups and a busy machine may add to a percentile
FREEZE_MS, FROZEN_RATE = 1000.0, 200
DRAIN_MS = 60.0  # until what a freeze has held up is answered
ADDED_MS = 5.0
REST_MS = (
    15.0  # what both sides wait: after a rest everything is slower, more so after a longer one
)
COLDER_MS = 0.03  # … which 5 ms more still make, and no log shows
CLOSE_MS = 0.3
HOP_MS = 1.5  # at most, for a hop itself
WORDS = 20  # of truth_upstream.py's streams

Trial = Callable[[bool, int], list[Finding]]


def find_jitter(quick: bool, seed: int) -> list[Finding]:
    """Waits of 40 to 60 ms, 2 % of 150 ms."""
    count = 500 if quick else 2000
    with truth("upstream", "jitter", "--seed", seed) as (url, _):
        report = run_benchmark("--base-url", url, "-c", 10, "-n", count, *NO_WARM_UP)
        log = [entry["ms"] for entry in read_log(url)[-count:]]
    return [
        equal("requests, errors", (count, 0), (report["requests"], report["errors"])),
        *match_log("of the log:", log, report["latency_ms"], slack_ms=SLACK_MS),
        *match_jitter(
            "of the law:", Jitter(), report["latency_ms"], count=count, slack_ms=SLACK_MS
        ),
    ]


def find_freeze_in_open_load(quick: bool, seed: int) -> list[Finding]:
    """200 requests/s meet 1 s in which the upstream does nothing."""
    report, rows = _run_frozen(quick)
    duration_ms = _frozen_duration_s(quick) * 1000
    findings = [equal("requests", FROZEN_RATE * _frozen_duration_s(quick), report["requests"])]
    for name, share in (("p95", 0.95), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)):
        at = frozen_percentile(share, freeze_ms=FREEZE_MS, duration_ms=duration_ms)
        found = report["latency_ms"][name]
        findings.append(within(f"latency {name}, ms", at - 15, at + DRAIN_MS, found))
    for column in ("latency_ms", "service_ms"):
        findings += _held(column, rows)
    return findings


def find_freeze_hidden_by_service_time(quick: bool, seed: int) -> list[Finding]:
    """The same, with at most 10 requests in flight: the others wait to be sent."""
    _, rows = _run_frozen(quick, "-c", 10)
    held = count_at_least(_column("service_ms", rows), 500)
    return [*_held("latency_ms", rows), equal("requests with service_ms of 500 ms", 10, held)]


def find_freeze_in_closed_load(quick: bool, seed: int) -> list[Finding]:
    """10 connections meet it once each, however many requests there would have been."""
    options = ("freeze", "--after", 300, "--wait-ms", 10)
    with truth("upstream", *options) as (url, _):
        load = ("-c", 10, "--duration", "4s")
        report, rows = run_with_samples("--base-url", url, *load, *NO_WARM_UP)
    held = count_at_least(_column("latency_ms", rows), 900)
    return [
        equal("requests with latency_ms of 900 ms", 10, held),
        within("latency p90, ms", 10, 10 + SLACK_MS, report["latency_ms"]["p90"]),
    ]


def _run_frozen(quick: bool, *load: object) -> tuple[Report, list[dict[str, str]]]:
    seconds = _frozen_duration_s(quick)
    after = FROZEN_RATE * seconds // 2
    with truth("upstream", "freeze", "--after", after, "--freeze-ms", FREEZE_MS) as (url, _):
        rate = ("--rate", f"{FROZEN_RATE}/s", "--duration", f"{seconds}s")
        return run_with_samples("--base-url", url, *rate, *load, *NO_WARM_UP)


def _frozen_duration_s(quick: bool) -> int:
    return 4 if quick else 10


def _held(column: str, rows: Iterable[dict[str, str]]) -> list[Finding]:
    """A freeze holds the arrivals up evenly: as many for 500 ms or more as for less."""
    values, findings = _column(column, rows), []
    for bound in (200, 500, 800):
        about = frozen_count(FROZEN_RATE, freeze_ms=FREEZE_MS, at_least_ms=bound)
        more = FROZEN_RATE * DRAIN_MS / 1000
        found = count_at_least(values, bound)
        what = f"requests with {column} of {bound} ms"
        findings.append(within(what, about - 3, about + more, found))
    return findings


def _column(name: str, rows: Iterable[dict[str, str]]) -> list[float]:
    return [float(row[name]) for row in rows if row[name]]


def find_exact_delay(quick: bool, seed: int) -> list[Finding]:
    """A second port of the same process that answers 5 ms later to the microsecond."""
    trials, requests = (10, 100) if quick else (30, 300)
    covered = found = 0
    options = ("late", "--wait-ms", REST_MS, "--extra-ms", ADDED_MS)
    with truth("upstream", *options) as (direct, late):
        for trial in range(trials):
            known = len(read_log(direct))
            added = _run_paired(late, direct, "-n", requests, "--seed", seed + trial)
            log = read_log(direct)[known:]
            real = _typical_of(log, port=1) - _typical_of(log, port=0)
            low, high = added["ci95"]
            covered += low - COLDER_MS <= real <= high + COLDER_MS
            found += is_found(added)
    return [
        equal(f"found, of {trials}", trials, found),
        count_within("intervals that hold the truth", trials, 0.95, covered),
    ]


def find_nothing_added(quick: bool, seed: int) -> list[Finding]:
    """A second port of the same process that answers no later."""
    trials, requests = (20, 400) if quick else (60, 1000)
    with truth("upstream", "late") as (direct, same):
        added = [
            _run_paired(same, direct, "-n", requests, "--seed", seed + trial)
            for trial in range(trials)
        ]
    covered = sum(one["ci95"][0] <= 0 <= one["ci95"][1] for one in added)
    return [
        count_at_most("found", trials, 0.05, sum(map(is_found, added))),
        count_at_most("intervals without 0", trials, 0.05, trials - covered),
    ]


def find_slow_hop(quick: bool, seed: int) -> list[Finding]:
    """A hop that holds each request for 5 ms more than another hop, and than none."""
    requests = 200 if quick else 1000
    with (
        mock() as url,
        _hop(url, "--hold-ms", REST_MS) as hop,
        _hop(url, "--hold-ms", REST_MS + ADDED_MS) as slow,
        _hop(url, "--hold-ms", ADDED_MS) as only,
    ):
        beside_hop = _run_paired(slow, hop, "-n", requests)
        beside_none = _run_paired(only, url, "-n", requests)
        streams = _run(slow, hop, "--stream", "-n", requests // 4)
        held = _held_by(slow) - _held_by(hop)
    low, high = beside_hop["ci95"]
    ttft, gap = streams["added_ttft_ms"], streams["added_inter_token_ms"]
    both = (beside_hop, beside_none)
    return [
        equal("found, beside a hop and beside none", 2, sum(map(is_found, both))),
        within("beside a hop: interval begins, ms", 0, held + COLDER_MS, low),
        within("beside a hop: interval ends, ms", held - COLDER_MS, 2 * held, high),
        within("beside a hop, ms", held - CLOSE_MS, held + CLOSE_MS, beside_hop["typical"]),
        within("beside none, ms", held, held + HOP_MS, beside_none["typical"]),
        within("first token, ms", held - CLOSE_MS, held + CLOSE_MS, ttft["typical"]),
        within("between tokens, ms", -CLOSE_MS, CLOSE_MS, gap["typical"]),
    ]


def count_broken_streams(quick: bool, seed: int) -> list[Finding]:
    """Every 10th stream is cut, every 11th reset, others lack their end or are refused."""
    count = 300 if quick else 3000
    with truth("upstream", "faults") as (url, _):
        load = ("--stream", "-c", 4, "-n", count, *ANY_ERRORS, *NO_WARM_UP)
        report = run_benchmark("--base-url", url, *load)
        real = Counter(entry["outcome"] for entry in read_log(url)[-count:])
    good = real.pop("ok")
    streams, kinds = report["streams"], report["error_kinds"]
    findings = [equal("answered well", good, report["requests"] - report["errors"])]
    for kind in sorted(real):
        findings.append(equal(kind, real[kind], kinds.get(kind, 0)))
    others = {kind for kind, number in kinds.items() if number} - set(real)
    return [
        *findings,
        equal("other kinds", [], sorted(others)),
        equal("streams that broke off", real["cut"], streams["cut"]),
        equal("streams without an end", real["broken stream"], streams["broken"]),
    ]


def catch_changed_byte(quick: bool, seed: int) -> list[Finding]:
    """A hop that changes one letter in every 7th answer, and one that changes nothing."""
    count = 100 if quick else 1000
    findings = []
    for what, kind in (("streams", ("--stream",)), ("plain answers", ())):
        with mock() as url, _hop(url, "--spoil-every", 7) as spoiling, _hop(url) as honest:
            load = (*kind, "-n", count)
            report = _run(spoiling, url, *load)
            spoiled = [entry["spoiled"] for entry in read_log(spoiling)]
            clean = _run(honest, url, *load)["fidelity"]
        caught = report["fidelity"]
        findings += [
            equal(f"{what}: verdict", "different", caught["verdict"]),
            equal(f"{what}: different", sum(spoiled[-report["requests"] :]), caught["different"]),
            equal(f"{what}: compared", report["requests"], caught["compared"]),
            equal(f"{what}, unchanged: verdict", "equal", clean["verdict"]),
            equal(f"{what}, unchanged: different", 0, clean["different"]),
        ]
    return findings


def find_pace_of_streams(quick: bool, seed: int) -> list[Finding]:
    """The first token after 30 ms, others 10 ms apart; 60 ms once in a 3rd, 250 ms in a 5th."""
    count = 60 if quick else 300
    with truth("upstream", "paced") as (url, _):
        load = ("--stream", "-c", 6, "-n", count)
        streams = run_benchmark("--base-url", url, *load, *NO_WARM_UP)["streams"]
        log = read_log(url)[-count:]
    gaps = [gap for entry in log for gap in entry["gaps_ms"]]
    stalls = sum(entry["stalls"] for entry in log)
    first, second = ([entry[name] for entry in log] for name in ("first_ms", "second_ms"))
    return [
        *match_log("first token:", first, streams["ttft_ms"], slack_ms=SLACK_MS),
        *match_log("second token:", second, streams["second_token_ms"], slack_ms=SLACK_MS),
        *match_log(
            "between:", gaps, streams["inter_token_ms"], slack_ms=SLACK_MS, less_ms=SLACK_MS
        ),
        equal("tokens", count * WORDS, streams["tokens"]),
        equal(
            "stalls, in streams", (stalls, stalls), (streams["stalls"], streams["stalled_streams"])
        ),
        equal("cut, broken", (0, 0), (streams["cut"], streams["broken"])),
    ]


@contextmanager
def _hop(url: str, *options: object) -> Iterator[str]:
    with truth("hop", urlsplit(url).port, *options) as (hop,):
        yield hop


def _run(target: str, direct: str, *load: object) -> Report:
    return run_benchmark("--base-url", target, *direct_to(direct), "-c", 1, *load, *NO_WARM_UP)


def _run_paired(target: str, direct: str, *load: object) -> Report:
    added: Report = _run(target, direct, *load)["added_latency_ms"]
    return added


def is_found(added: Report) -> bool:
    """As the report's readers are told to judge."""
    low, high = added["ci95"]
    return bool(added["p_value"] < 0.05 and not low <= 0 <= high)


def _typical_of(log: Iterable[Report], *, port: int) -> float:
    return median(float(entry["ms"]) for entry in log if entry["port"] == port)


def _held_by(hop: str) -> float:
    return median(float(entry["held_ms"]) for entry in read_log(hop))


TRIALS: dict[str, Trial] = {
    "jitter": find_jitter,
    "freeze, open load": find_freeze_in_open_load,
    "freeze, service time": find_freeze_hidden_by_service_time,
    "freeze, closed load": find_freeze_in_closed_load,
    "5 ms exactly": find_exact_delay,
    "nothing added": find_nothing_added,
    "5 ms by a hop": find_slow_hop,
    "broken streams": count_broken_streams,
    "changed byte": catch_changed_byte,
    "pace of streams": find_pace_of_streams,
}
