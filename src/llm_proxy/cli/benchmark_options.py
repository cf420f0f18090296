"""The options of `llm-proxy benchmark`, as they are written and as they were given."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

_TARGET = "Target"
_REQUESTS = "Requests"
_LOAD = "Load"
_LIMITS = "Limits (exit code 1 when one is missed)"
_REPORTS = "Reports"

BaseUrl = Annotated[
    str | None,
    typer.Option(
        "--base-url",
        envvar="PROXY_URL",
        metavar="URL",
        rich_help_panel=_TARGET,
        help="What to measure; without it a throw-away server in front of the built-in mock.",
    ),
]
Tokens = Annotated[
    list[str] | None,
    typer.Option(
        "--token",
        envvar="PROXY_TOKEN",
        metavar="TOKEN|-",
        rich_help_panel=_TARGET,
        help="Sent with the requests; several take turns. - reads it from stdin.",
    ),
]
TokenEnv = Annotated[
    str | None,
    typer.Option(
        "--token-env",
        metavar="NAME",
        rich_help_panel=_TARGET,
        help="The variable that holds the token, instead of PROXY_TOKEN.",
    ),
]
TokenCount = Annotated[
    int | None,
    typer.Option(
        "--tokens",
        metavar="N",
        min=1,
        max=10_000,
        rich_help_panel=_TARGET,
        help="How many tokens the throw-away server makes; they take turns (1).",
    ),
]
DirectUrl = Annotated[
    str | None,
    typer.Option(
        "--direct-url",
        metavar="URL",
        rich_help_panel=_TARGET,
        help="The same upstream without the proxy: measures in turns what the proxy adds.",
    ),
]
DirectKeyEnv = Annotated[
    str | None,
    typer.Option(
        "--direct-key-env",
        metavar="NAME",
        rich_help_panel=_TARGET,
        help="The variable that holds the key of --direct-url, such as OPENAI_API_KEY.",
    ),
]
Mock = Annotated[
    bool,
    typer.Option(
        "--mock",
        rich_help_panel=_TARGET,
        help="Measure a throw-away server and mock, whatever PROXY_URL says.",
    ),
]
CaFile = Annotated[
    Path | None,
    typer.Option(
        "--ca-file",
        metavar="FILE",
        rich_help_panel=_TARGET,
        help="PEM roots to trust, instead of the system's.",
    ),
]
Pid = Annotated[
    int | None,
    typer.Option(
        "--pid",
        metavar="PID",
        min=1,
        rich_help_panel=_TARGET,
        help="Watch CPU and memory of this process and its children.",
    ),
]
Yes = Annotated[
    bool,
    typer.Option(
        "--yes", "-y", rich_help_panel=_TARGET, help="Don't ask before a target elsewhere is used."
    ),
]

PresetName = Annotated[
    str | None,
    typer.Option(
        "--preset",
        metavar="NAME",
        rich_help_panel=_REQUESTS,
        help="chat (the default), chat-stream, agent, embeddings, or messages (Anthropic).",
    ),
]
Endpoint = Annotated[
    str | None,
    typer.Option(
        "--endpoint",
        metavar="PATH",
        rich_help_panel=_REQUESTS,
        help="Path of the requests, instead of the preset's.",
    ),
]
Method = Annotated[
    str | None,
    typer.Option(
        "--method",
        metavar="METHOD",
        rich_help_panel=_REQUESTS,
        help="POST when there is a body, else GET.",
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model", metavar="MODEL", rich_help_panel=_REQUESTS, help="Instead of the preset's."
    ),
]
Stream = Annotated[
    bool,
    typer.Option(
        "--stream",
        rich_help_panel=_REQUESTS,
        help="Ask for streams: measures tokens, gaps between them, and stalls.",
    ),
]
Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="BODY|@FILE|@-",
        rich_help_panel=_REQUESTS,
        help="The body of the requests.",
    ),
]
Prompts = Annotated[
    Path | None,
    typer.Option(
        "--prompts",
        metavar="FILE.jsonl",
        rich_help_panel=_REQUESTS,
        help="Lines that take turns: a string, an object with prompt or messages, or a body.",
    ),
]
MakePrompts = Annotated[
    str | None,
    typer.Option(
        "--make-prompts",
        metavar="[COUNTx]TOKENS",
        rich_help_panel=_REQUESTS,
        help="Made up: 20000 is one of so many tokens, 5000x20 are 5000 that differ.",
    ),
]
Headers = Annotated[
    list[str] | None,
    typer.Option(
        "--header",
        "-H",
        metavar="'NAME: VALUE'",
        rich_help_panel=_REQUESTS,
        help="A header of the requests; may be repeated.",
    ),
]
CacheTtl = Annotated[
    str | None,
    typer.Option(
        "--cache-ttl",
        metavar="DURATION",
        rich_help_panel=_REQUESTS,
        help="Ask for answers to be cached: sends Cache-Control: public, max-age=….",
    ),
]
CancelRate = Annotated[
    str | None,
    typer.Option(
        "--cancel-rate",
        metavar="PERCENT",
        rich_help_panel=_REQUESTS,
        help="The share of streams to hang up on, such as 10%.",
    ),
]

Concurrency = Annotated[
    int | None,
    typer.Option(
        "--concurrency",
        "-c",
        metavar="N",
        min=1,
        max=10_000,
        rich_help_panel=_LOAD,
        help="Connections that each send the next request after the last answer (10); "
        "with a rate: the most requests in flight.",
    ),
]
Requests = Annotated[
    int | None,
    typer.Option(
        "--requests",
        "-n",
        "-r",
        metavar="N",
        min=1,
        rich_help_panel=_LOAD,
        help="End after N; with --duration after whichever comes first.",
    ),
]
Duration = Annotated[
    str | None,
    typer.Option(
        "--duration",
        metavar="DURATION",
        rich_help_panel=_LOAD,
        help="End after so long (10s); of a search the length of each probe (5s).",
    ),
]
Rate = Annotated[
    str | None,
    typer.Option(
        "--rate",
        metavar="RATE",
        rich_help_panel=_LOAD,
        help="Requests come at this rate, however long answers take: 500/s, 30/m.",
    ),
]
Poisson = Annotated[
    bool,
    typer.Option(
        "--poisson", rich_help_panel=_LOAD, help="At random moments instead of evenly spaced."
    ),
]
Stages = Annotated[
    str | None,
    typer.Option(
        "--stages",
        metavar="10s:100,30s:500",
        rich_help_panel=_LOAD,
        help="Ramps: in 10 s from 0 to 100/s, then in 30 s on to 500/s.",
    ),
]
ReplayFile = Annotated[
    Path | None,
    typer.Option(
        "--replay",
        metavar="TRACE.jsonl",
        rich_help_panel=_LOAD,
        help="Requests come as they were recorded: a published trace, or our own event log.",
    ),
]
Speed = Annotated[
    float | None,
    typer.Option(
        "--speed",
        metavar="FACTOR",
        min=0.001,
        max=1000,
        rich_help_panel=_LOAD,
        help="Of --replay: 2 halves the gaps.",
    ),
]
FindMaximum = Annotated[
    bool,
    typer.Option(
        "--find-max",
        rich_help_panel=_LOAD,
        help="Search the highest rate that keeps within --slo; --rate is the first one tried.",
    ),
]
Frontier = Annotated[
    str | None,
    typer.Option(
        "--frontier",
        metavar="1ms,10ms,…",
        rich_help_panel=_LOAD,
        help="Search the highest rate within each of these limits of p99; --rate is the first.",
    ),
]
Processes = Annotated[
    int,
    typer.Option(
        "--processes",
        metavar="N",
        min=1,
        max=64,
        rich_help_panel=_LOAD,
        help="Generator processes; one makes some 25,000 requests a second.",
    ),
]
WarmUp = Annotated[
    str | None,
    typer.Option(
        "--warm-up",
        metavar="DURATION",
        rich_help_panel=_LOAD,
        help="Load that isn't counted: 1s, or none where requests are counted or billed.",
    ),
]
Repeat = Annotated[
    int | None,
    typer.Option(
        "--repeat",
        metavar="N",
        min=1,
        max=100,
        rich_help_panel=_LOAD,
        help="Run N times; the median run is reported, with the spread.",
    ),
]
Timeout = Annotated[
    str,
    typer.Option(
        "--timeout",
        metavar="DURATION",
        rich_help_panel=_LOAD,
        help="For a connection, for the head of an answer, between pieces of it.",
    ),
]
MaxTime = Annotated[
    str,
    typer.Option(
        "--max-time",
        metavar="DURATION",
        rich_help_panel=_LOAD,
        help="For a whole answer, however steadily it comes.",
    ),
]
Seed = Annotated[
    int,
    typer.Option(
        "--seed", metavar="N", rich_help_panel=_LOAD, help="Of everything that is drawn by lot."
    ),
]

Slo = Annotated[
    list[str] | None,
    typer.Option(
        "--slo",
        metavar="p99=50ms,…",
        rich_help_panel=_LIMITS,
        help="Service level: p50=20ms, ttft.p99=1s, added.p99=1ms, rps=500, errors=1%.",
    ),
]
GoodputLimits = Annotated[
    str | None,
    typer.Option(
        "--goodput",
        metavar="latency=50ms,…",
        rich_help_panel=_LIMITS,
        help="What each request must keep to, to be a good one; --slo goodput=95% demands them.",
    ),
]
MaxErrorRate = Annotated[
    str,
    typer.Option(
        "--max-error-rate",
        metavar="PERCENT",
        rich_help_panel=_LIMITS,
        help="Share of requests that may fail.",
    ),
]
Compare = Annotated[
    Path | None,
    typer.Option(
        "--compare",
        metavar="OLD.json",
        rich_help_panel=_LIMITS,
        help="Show the figures beside those of an earlier --json.",
    ),
]
MaxRegression = Annotated[
    str | None,
    typer.Option(
        "--max-regression",
        metavar="p99=10%,…",
        rich_help_panel=_LIMITS,
        help="How much worse figures may be than in --compare.",
    ),
]

AsJSON = Annotated[
    bool,
    typer.Option("--json", rich_help_panel=_REPORTS, help="Print the report as JSON on stdout."),
]
CsvFile = Annotated[
    Path | None,
    typer.Option(
        "--csv", metavar="FILE", rich_help_panel=_REPORTS, help="A line for each request."
    ),
]
JsonlFile = Annotated[
    Path | None,
    typer.Option(
        "--jsonl", metavar="FILE", rich_help_panel=_REPORTS, help="The same as JSON objects."
    ),
]
HtmlFile = Annotated[
    Path | None,
    typer.Option("--html", metavar="FILE", rich_help_panel=_REPORTS, help="A page with charts."),
]
HdrFile = Annotated[
    Path | None,
    typer.Option("--hdr", metavar="FILE", rich_help_panel=_REPORTS, help="An HdrHistogram log."),
]
JunitFile = Annotated[
    Path | None,
    typer.Option(
        "--junit", metavar="FILE", rich_help_panel=_REPORTS, help="The limits as test cases."
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """The values of the options; None, False or empty is not given."""

    base_url: str | None = None
    token: list[str] | None = None
    token_env: str | None = None
    tokens: int | None = None
    direct_url: str | None = None
    direct_key_env: str | None = None
    mock: bool = False
    ca_file: Path | None = None
    pid: int | None = None
    yes: bool = False
    preset: str | None = None
    endpoint: str | None = None
    method: str | None = None
    model: str | None = None
    stream: bool = False
    data: str | None = None
    prompts: Path | None = None
    make_prompts: str | None = None
    header: list[str] | None = None
    cache_ttl: str | None = None
    cancel_rate: str | None = None
    concurrency: int | None = None
    requests: int | None = None
    duration: str | None = None
    rate: str | None = None
    poisson: bool = False
    stages: str | None = None
    replay: Path | None = None
    speed: float | None = None
    find_max: bool = False
    frontier: str | None = None
    processes: int = 1
    warm_up: str | None = None
    repeat: int | None = None
    timeout: str = "60s"
    max_time: str = "10m"
    seed: int = 1
    slo: list[str] | None = None
    goodput: str | None = None
    max_error_rate: str = "1%"
    compare: Path | None = None
    max_regression: str | None = None
    as_json: bool = False
    csv: Path | None = None
    jsonl: Path | None = None
    html: Path | None = None
    hdr: Path | None = None
    junit: Path | None = None


def was_given(given: Given, name: str) -> bool:
    return getattr(given, name) not in (None, False, "", [])
