"""`llm-proxy benchmark`: load and latency of a target, and what a proxy adds to it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import typer

from llm_proxy.cli import benchmark_options as options
from llm_proxy.cli.benchmark_options import Given
from llm_proxy.errors import LLMProxyError, Unreachable

if TYPE_CHECKING:
    from llm_proxy.benchmark.composition import Circumstances, Limits
    from llm_proxy.benchmark.mock_watch import MockWatch
    from llm_proxy.benchmark.plan import Plan
    from llm_proxy.benchmark.report import Report
    from llm_proxy.benchmark.results import Results
    from llm_proxy.benchmark.session import Course, Measured, Usage
    from llm_proxy.cli.benchmark_load import LoadChoice
    from llm_proxy.cli.benchmark_outputs import Outputs
    from llm_proxy.cli.benchmark_target import Targets
    from llm_proxy.cli.benchmark_workload import WorkloadChoice

_INTERRUPTED = 130


def benchmark(
    context: typer.Context,
    *,
    base_url: options.BaseUrl = None,
    token: options.Tokens = None,
    token_env: options.TokenEnv = None,
    tokens: options.TokenCount = None,
    direct_url: options.DirectUrl = None,
    direct_key_env: options.DirectKeyEnv = None,
    mock: options.Mock = False,
    ca_file: options.CaFile = None,
    pid: options.Pid = None,
    yes: options.Yes = False,
    preset: options.PresetName = None,
    endpoint: options.Endpoint = None,
    method: options.Method = None,
    model: options.Model = None,
    stream: options.Stream = False,
    data: options.Data = None,
    prompts: options.Prompts = None,
    make_prompts: options.MakePrompts = None,
    header: options.Headers = None,
    cache_ttl: options.CacheTtl = None,
    cancel_rate: options.CancelRate = None,
    concurrency: options.Concurrency = None,
    requests: options.Requests = None,
    duration: options.Duration = None,
    rate: options.Rate = None,
    poisson: options.Poisson = False,
    stages: options.Stages = None,
    replay: options.ReplayFile = None,
    speed: options.Speed = None,
    find_max: options.FindMaximum = False,
    frontier: options.Frontier = None,
    processes: options.Processes = 1,
    warm_up: options.WarmUp = None,
    repeat: options.Repeat = None,
    timeout: options.Timeout = "60s",
    max_time: options.MaxTime = "10m",
    seed: options.Seed = 1,
    slo: options.Slo = None,
    goodput: options.GoodputLimits = None,
    max_error_rate: options.MaxErrorRate = "1%",
    compare: options.Compare = None,
    max_regression: options.MaxRegression = None,
    as_json: options.AsJSON = False,
    csv: options.CsvFile = None,
    jsonl: options.JsonlFile = None,
    html: options.HtmlFile = None,
    hdr: options.HdrFile = None,
    junit: options.JunitFile = None,
) -> None:
    """Measure load and latency of a target, and what a proxy adds to it.

    Without a target a throw-away server and the built-in mock are started and
    measured in turns, so that it costs nothing and needs no key.

    \b
    Examples:
      llm-proxy benchmark --concurrency 10
      llm-proxy benchmark --preset chat-stream --requests 200 --html report.html
      llm-proxy benchmark --base-url http://localhost:8080 --rate 500/s
      llm-proxy benchmark --base-url http://localhost:8080 --requests 50 \\
          --direct-url https://api.openai.com --direct-key-env OPENAI_API_KEY
      llm-proxy benchmark --find-max --slo p99=50ms,errors=0.1%
      llm-proxy benchmark --frontier 1ms,5ms,10ms,50ms,100ms
      llm-proxy benchmark --json > old.json
      llm-proxy benchmark --compare old.json --max-regression p99=10%,rps=5%

    Ctrl-C ends the run and prints the report of what was measured so far.
    """
    values = {name: value for name, value in locals().items() if name != "context"}
    given = _settled(context, Given(**values))
    from llm_proxy.cli.benchmark_run import interrupted_by_termination

    try:
        with interrupted_by_termination():
            code = _benchmark(context, given)
    except KeyboardInterrupt:
        print("Interrupted before there was anything to report.", file=sys.stderr)
        code = _INTERRUPTED
    if code:
        raise typer.Exit(code)


def _settled(context: typer.Context, given: Given) -> Given:
    """What the environment says gives way to options; a throw-away server needs none of it."""
    from llm_proxy.cli.benchmark_command_line import is_from_environment
    from llm_proxy.cli.benchmark_contradictions import refuse_contradictions

    changes: dict[str, Any] = {}
    if given.mock and is_from_environment(context, "base_url"):
        changes["base_url"] = None
    is_throwaway = given.mock or not given.base_url
    if is_from_environment(context, "token") and (is_throwaway or given.token_env):
        changes["token"] = None
    given = replace(given, **changes)
    refuse_contradictions(given)
    return given


@dataclass(frozen=True, slots=True, kw_only=True)
class _Prepared:
    """All that is known before anything is sent or started."""

    given: Given
    workload: WorkloadChoice
    limits: Limits
    timeout_s: float
    max_time_s: float


def _benchmark(context: typer.Context, given: Given) -> int:
    from llm_proxy.cli.benchmark_outputs import Outputs

    prepared = _prepare(given)
    outputs = Outputs(given)
    try:
        with _targets(prepared) as (targets, choice):
            measured, circumstances = _measure(context, prepared, targets, choice, outputs=outputs)
    except BaseException:
        outputs.discard()
        raise
    return _report(measured, circumstances, prepared, outputs)


def _prepare(given: Given) -> _Prepared:
    from llm_proxy.cli.benchmark_limits import choose_limits
    from llm_proxy.cli.benchmark_load import choose_load, parse_length
    from llm_proxy.cli.benchmark_workload import choose_workload

    # Whatever is wrong is said before the first process is started.
    choose_load(given, is_elsewhere=False, is_throwaway=True)
    workload = choose_workload(given)
    limits = choose_limits(given, is_stream=workload.workload.is_stream)
    if workload.left_out:
        print(f"Left out: {workload.left_out} records of something else.", file=sys.stderr)
    return _Prepared(
        given=given,
        workload=workload,
        limits=limits,
        timeout_s=parse_length("--timeout", given.timeout),
        max_time_s=parse_length("--max-time", given.max_time),
    )


@contextmanager
def _targets(prepared: _Prepared) -> Iterator[tuple[Targets, LoadChoice]]:
    from llm_proxy.cli.benchmark_load import choose_load
    from llm_proxy.cli.benchmark_target import confirm_costs, given_targets
    from llm_proxy.cli.benchmark_throwaway import throwaway_targets

    given, workload = prepared.given, prepared.workload
    preset, replay = workload.preset, workload.replay
    if given.base_url:
        targets = given_targets(given, preset, workload.workload.endpoint)
        is_elsewhere = bool(targets.elsewhere)
        choice = choose_load(given, is_elsewhere=is_elsewhere, is_throwaway=False, replay=replay)
        confirm_costs(targets, choice, yes=given.yes)
        yield targets, choice
        return
    print("Starting a throw-away server and the built-in mock behind it …", file=sys.stderr)
    has_hang_ups = bool(workload.workload.cancel_rate)
    with throwaway_targets(preset, tokens=given.tokens or 1, has_hang_ups=has_hang_ups) as targets:
        yield targets, choose_load(given, is_elsewhere=False, is_throwaway=True, replay=replay)


def _measure(
    context: typer.Context,
    prepared: _Prepared,
    targets: Targets,
    choice: LoadChoice,
    *,
    outputs: Outputs,
) -> tuple[Measured, Circumstances]:
    from rich.console import Console

    from llm_proxy.benchmark.live_view import LiveView
    from llm_proxy.cli.benchmark_reach import look_at_targets
    from llm_proxy.cli.benchmark_run import run_session

    plan = _plan(prepared, targets, choice)
    usage = _usage(prepared.given, targets)
    look_at_targets(plan)
    circumstances = _circumstances(context, prepared, targets, choice)
    view = LiveView(
        Console(stderr=True),
        title=f"{targets.proxied.base_url}{circumstances.workload.endpoint}",
    )
    with view:
        measured = run_session(
            plan,
            _course(prepared.limits, choice),
            processes=choice.processes,
            view=view,
            usage=usage,
            mock=_mock_watch(targets),
            on_frame=outputs.begin(),
            goodput=prepared.limits.goodput,
        )
    return measured, circumstances


def _plan(prepared: _Prepared, targets: Targets, choice: LoadChoice) -> Plan:
    from llm_proxy.benchmark.plan import Plan

    return Plan(
        targets=targets.all if choice.first_rate is None else (targets.proxied,),
        workload=prepared.workload.workload,
        load=choice.load,
        timeout_s=prepared.timeout_s,
        max_time_s=prepared.max_time_s,
        seed=prepared.given.seed,
    )


def _usage(given: Given, targets: Targets) -> Usage | None:
    from llm_proxy.benchmark.process_usage import UsageWatch
    from llm_proxy.errors import ConfigError

    if targets.pid is None:
        return None
    try:
        return UsageWatch(targets.pid)
    except ConfigError:
        if given.pid is not None:
            raise
        return None  # nobody asked for it


def _mock_watch(targets: Targets) -> MockWatch | None:
    from llm_proxy.benchmark.mock_watch import MockWatch

    if targets.mock_pid is None or targets.mock_key is None or targets.direct is None:
        return None
    return MockWatch(targets.mock_pid, targets.direct.base_url, targets.mock_key)


def _course(limits: Limits, choice: LoadChoice) -> Course:
    from llm_proxy.benchmark.service import Service
    from llm_proxy.benchmark.session import Course

    service = None
    if choice.first_rate is not None:
        service = Service(
            thresholds=limits.slo,
            max_error_rate=limits.max_error_rate,
            first_rate=choice.first_rate,
            p99_limits_ms=choice.p99_limits_ms,
        )
    return Course(warm_up_s=choice.warm_up_s, repeats=choice.repeats, service=service)


def _circumstances(
    context: typer.Context, prepared: _Prepared, targets: Targets, choice: LoadChoice
) -> Circumstances:
    from datetime import UTC, datetime

    from llm_proxy.benchmark.composition import Circumstances
    from llm_proxy.benchmark.environment import fingerprint
    from llm_proxy.cli.benchmark_command_line import command_line

    secrets = [key for target in targets.all for key in target.keys]
    return Circumstances(
        command=command_line(context, secrets),
        seed=prepared.given.seed,
        started_at=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        environment=fingerprint(),
        load=choice.describe(),
        workload=prepared.workload.describe(targets, is_paired=choice.first_rate is None),
    )


def _report(
    measured: Measured, circumstances: Circumstances, prepared: _Prepared, outputs: Outputs
) -> int:
    from llm_proxy.benchmark.composition import checked, compose

    report = checked(compose(measured, circumstances), prepared.limits)
    outputs.write(report, measured.results.histograms)  # first: a pipe may end the printing
    try:
        _print(report, as_json=prepared.given.as_json)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as exc:
        raise LLMProxyError(f"the report couldn't be written to stdout: {exc.strerror}") from exc
    outputs.check()
    if report.interrupted:
        return _INTERRUPTED
    if report.requests and report.error_kinds.get("connect") == report.requests:
        raise Unreachable(
            f"{report.workload.base_url} answered once and could not be reached after that; "
            "is it still running?"
        )
    if report.passed and _is_gone(measured.last):
        raise Unreachable(
            f"{report.workload.base_url} could not be reached any more when the run ended, which "
            "the error rate hardly shows; is it still running?"
        )
    return 0 if report.passed else 1


def _is_gone(run: Results) -> bool:
    """Whether nobody answered in its last tenth, for want of a connection."""
    if "connect" not in run.side.error_kinds or not run.series:
        return False
    end = run.series[-1].at_s + run.series[-1].length_s
    last = [it for it in run.series if it.at_s >= 0.9 * end] or run.series[-1:]
    return all(it.errors == it.requests for it in last) and sum(it.errors for it in last) > 1


def _print(report: Report, *, as_json: bool) -> None:
    from rich.console import Console

    from llm_proxy.benchmark.report import encode_report
    from llm_proxy.benchmark.terminal_report import print_report

    if not as_json:
        print_report(report, Console())
        return
    print(encode_report(report).decode(), end="")
    for check in report.checks:
        if not check.passed:
            print(f"Missed: {check.message}", file=sys.stderr)
