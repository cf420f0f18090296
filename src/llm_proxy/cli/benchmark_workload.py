"""What `llm-proxy benchmark` sends: method, endpoint, headers and bodies."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from llm_proxy.cli.benchmark_options import Given
from llm_proxy.errors import WrongUsage

if TYPE_CHECKING:
    from llm_proxy.benchmark.plan import Replay, Workload
    from llm_proxy.benchmark.presets import Preset
    from llm_proxy.benchmark.report import WorkloadDescription
    from llm_proxy.benchmark.trace import Trace
    from llm_proxy.cli.benchmark_target import Targets

_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)  # RFC 9110 section 5.6.2
_OURS: Final = frozenset(
    ("host", "content-length", "transfer-encoding", "connection", "expect", "upgrade", "te")
)
_MADE: Final = re.compile(r"(?:(\d{1,8})x)?(\d{1,8})", re.ASCII)
_MOST_MADE: Final = 10_000_000
_LONGEST_CACHE_S: Final = 365 * 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadChoice:
    workload: Workload
    preset: Preset
    is_preset: bool  # else the requests are others than the preset's
    replay: Replay | None = None  # when they come, with --replay
    left_out: int = 0  # records of the trace that can't be replayed

    def describe(self, targets: Targets, *, is_paired: bool) -> WorkloadDescription:
        from llm_proxy.benchmark.report import WorkloadDescription
        from llm_proxy.cli.benchmark_command_line import without_query_values

        direct = targets.direct if is_paired else None
        return WorkloadDescription(
            base_url=targets.proxied.base_url,
            direct_url=None if direct is None else direct.base_url,
            method=self.workload.method,
            endpoint=without_query_values(self.workload.endpoint),
            preset=self.preset.name if self.is_preset else None,
            stream=self.workload.is_stream,
            bodies=len(self.workload.bodies),
            tokens=len(targets.proxied.keys),
            is_throwaway=targets.is_throwaway,
            cancel_rate=self.workload.cancel_rate,
        )


def choose_workload(given: Given) -> WorkloadChoice:
    """Raises WrongUsage, or ConfigError for what is wrong in a file."""
    from llm_proxy.benchmark.plan import Workload

    preset, is_preset = _preset(given)
    trace = None if given.replay is None else _trace(given, preset, is_preset=is_preset)
    bodies = _bodies(given, preset, is_preset=is_preset) if trace is None else trace.bodies
    has_body = bodies != (b"",)
    is_stream = _is_stream(given, preset, bodies)
    workload = Workload(
        method=_method(given, has_body=has_body),
        endpoint=_endpoint(given, preset),
        headers=_headers(given, preset, has_body=has_body),
        bodies=bodies,
        order=preset.order if _is_own(given) else "shuffled",
        is_stream=is_stream,
        cancel_rate=_cancel_rate(given, is_stream=is_stream),
    )
    return WorkloadChoice(
        workload=workload,
        preset=preset,
        is_preset=is_preset,
        replay=None if trace is None else trace.replay,
        left_out=0 if trace is None else trace.left_out,
    )


def _preset(given: Given) -> tuple[Preset, bool]:
    """The one that is named or has the endpoint; and whether the requests are its own."""
    from llm_proxy.benchmark.presets import PRESETS

    if given.preset is not None:
        if given.preset not in PRESETS:
            raise WrongUsage(f"--preset must be one of {', '.join(PRESETS)}, not {given.preset!r}")
        return PRESETS[given.preset], True
    if given.endpoint is None:
        return PRESETS["chat"], True
    for preset in PRESETS.values():
        if given.endpoint.endswith(preset.endpoint):
            return preset, True
    return PRESETS["chat"], False


def _bodies(given: Given, preset: Preset, *, is_preset: bool) -> tuple[bytes, ...]:
    from llm_proxy.benchmark.workload_files import (
        prompt_bodies,
        read_data,
        read_stdin,
        streaming_data,
    )

    stream = _wants_stream(given, preset, is_preset=is_preset)
    if given.data is not None:
        data = read_stdin(sys.stdin.buffer) if given.data == "@-" else read_data(given.data)
        return (streaming_data(data, preset.api) if stream else data,)
    if given.prompts is not None:
        return prompt_bodies(given.prompts, preset, model=given.model, stream=stream)
    if not is_preset or _is_bodiless(given.method):
        return (b"",)
    if given.make_prompts is not None:
        return _made_prompts(given, preset, stream=stream)
    return preset.bodies(seed=given.seed, model=given.model, stream=stream)


def _wants_stream(given: Given, preset: Preset, *, is_preset: bool) -> bool:
    stream = given.stream or preset.is_stream
    if stream and is_preset and not preset.can_stream:
        raise WrongUsage(f"--stream and --preset {preset.name} contradict each other: it has none")
    return stream


def _made_prompts(given: Given, preset: Preset, *, stream: bool) -> tuple[bytes, ...]:
    from llm_proxy.benchmark.made_text import made_text
    from llm_proxy.benchmark.workload_files import MOST_PROMPTS

    match = _MADE.fullmatch((given.make_prompts or "").strip())
    count, tokens = (int(match[1] or 1), int(match[2])) if match else (0, 0)
    if not (0 < count <= MOST_PROMPTS and tokens > 0 and count * tokens <= _MOST_MADE):
        raise WrongUsage(
            "--make-prompts must be TOKENS or COUNTxTOKENS, like 20000 or 5000x20, at most "
            f"{MOST_PROMPTS} prompts of {_MOST_MADE} tokens together, not {given.make_prompts!r}"
        )
    prompts = (made_text(tokens, f"{given.seed}/{number}") for number in range(count))
    return tuple(
        preset.body(preset.asking(prompt), model=given.model, stream=stream) for prompt in prompts
    )


def _trace(given: Given, preset: Preset, *, is_preset: bool) -> Trace:
    from llm_proxy.benchmark.trace import Excerpt, read_trace
    from llm_proxy.benchmark.trace_bodies import TraceBodies
    from llm_proxy.cli.benchmark_load import parse_length

    assert given.replay is not None
    endpoint = _endpoint(given, preset)
    duration_s = None if given.duration is None else parse_length("--duration", given.duration)
    trace = read_trace(
        given.replay,
        TraceBodies(
            preset,
            endpoint=endpoint,
            model=given.model,
            stream=_wants_stream(given, preset, is_preset=is_preset),
            seed=given.seed,
        ),
        Excerpt(speed=given.speed or 1.0, requests=given.requests, duration_s=duration_s),
    )
    if trace.is_made_up and not is_preset:
        raise WrongUsage(
            f"--endpoint {endpoint[:60]} is none of a preset: --replay makes up prompts for those "
            "only; give a trace that holds the requests"
        )
    return trace


def _is_own(given: Given) -> bool:
    """Whether the requests are those of the preset itself."""
    others = (given.data, given.prompts, given.make_prompts, given.replay)
    return all(other is None for other in others)


def _is_bodiless(method: str | None) -> bool:
    return method is not None and method.upper() in ("GET", "HEAD", "DELETE", "OPTIONS")


def _is_stream(given: Given, preset: Preset, bodies: tuple[bytes, ...]) -> bool:
    from llm_proxy.benchmark.workload_files import asks_for_stream

    return given.stream or any(asks_for_stream(body) for body in bodies)


def _method(given: Given, *, has_body: bool) -> str:
    method = (given.method or ("POST" if has_body else "GET")).upper()
    if not _NAME.fullmatch(method) or method in ("CONNECT", "TRACE"):
        raise WrongUsage(f"--method must be one like GET or POST, not {given.method!r}")
    return method


def _endpoint(given: Given, preset: Preset) -> str:
    endpoint = preset.endpoint if given.endpoint is None else given.endpoint
    plain = endpoint.isascii() and endpoint.isprintable() and " " not in endpoint
    if not endpoint.startswith("/") or "#" in endpoint or not plain:
        raise WrongUsage(
            f"--endpoint must be a path like /v1/models, in visible ASCII, not {endpoint[:60]!r}"
        )
    return endpoint


def _headers(given: Given, preset: Preset, *, has_body: bool) -> tuple[tuple[str, str], ...]:
    """Those that are given replace those of the preset."""
    own = [parse_header(text) for text in given.header or []]
    names = {name.lower() for name, _ in own}
    has_token = given.token or given.token_env or not given.base_url
    if has_token and preset.key_header.lower() in names:
        raise WrongUsage(
            f"--header {preset.key_header} and --token contradict each other: give the key once "
            "(a throw-away server makes its own)"
        )
    defaults = list(preset.headers)
    if has_body:
        defaults.append(("Content-Type", "application/json"))
    if given.cache_ttl is not None:
        if "cache-control" in names:
            raise WrongUsage(
                "--header Cache-Control and --cache-ttl contradict each other: leave one away"
            )
        defaults.append(("Cache-Control", f"public, max-age={_cache_ttl(given.cache_ttl)}"))
    return (*(pair for pair in defaults if pair[0].lower() not in names), *own)


def parse_header(text: str) -> tuple[str, str]:
    """Raises WrongUsage, which never shows the value: it may be a secret."""
    name, colon, value = text.partition(":")
    if not colon or not _NAME.fullmatch(name):
        raise WrongUsage("--header must be written 'NAME: VALUE', like 'X-Team: search'")
    if name.lower() in _OURS:
        raise WrongUsage(f"--header {name} can't be set: it belongs to the connection")
    value = value.strip()
    if not (value.isascii() and value.replace("\t", " ").isprintable()):
        raise WrongUsage(f"the value of --header {name} must be visible ASCII on one line")
    return name, value


def _cache_ttl(text: str) -> int:
    from llm_proxy.quantities import parse_duration

    try:
        seconds = parse_duration(text, bare_unit="s")
    except ValueError as exc:
        raise WrongUsage(f"--cache-ttl: {exc}") from None
    if not 1 <= seconds <= _LONGEST_CACHE_S:
        raise WrongUsage(f"--cache-ttl must be from 1s to 365d, not {text!r}")
    return int(seconds)


def _cancel_rate(given: Given, *, is_stream: bool) -> float:
    if given.cancel_rate is None:
        return 0.0
    if not is_stream:
        raise WrongUsage("--cancel-rate needs --stream: it is about streams to hang up on")
    return parse_percentage("--cancel-rate", given.cancel_rate)


def parse_percentage(option: str, text: str) -> float:
    """`10%` is 0.1. Raises WrongUsage."""
    from llm_proxy.benchmark.thresholds import parse_share

    try:
        share = parse_share(text)
    except ValueError as exc:
        raise WrongUsage(f"{option}: {exc}") from None
    if share > 1:
        raise WrongUsage(f"{option} must be at most 100%, not {text!r}")
    return share
