"""Options of `llm-proxy benchmark` that can't go together, or not alone."""

from __future__ import annotations

from llm_proxy.cli.benchmark_options import Given, was_given
from llm_proxy.cli.benchmark_outputs import FILES
from llm_proxy.errors import WrongUsage

# Two that exclude each other, and what to do.
_EXCLUDE = (
    ("mock", "base_url", "a throw-away server is measured, or a target; leave one of them away"),
    ("mock", "direct_url", "the mock is the direct target itself; leave --direct-url away"),
    ("mock", "token", "the throw-away server makes its own token; leave --token away"),
    ("mock", "token_env", "the throw-away server makes its own token; leave --token-env away"),
    ("mock", "pid", "the throw-away server is watched anyway; leave --pid away"),
    ("token", "token_env", "give the token once"),
    ("tokens", "base_url", "a throw-away server makes them; give several --token instead"),
    ("data", "prompts", "the body comes from one of them; leave the other away"),
    ("make_prompts", "data", "the body comes from one of them; leave the other away"),
    ("make_prompts", "prompts", "the prompts come from one of them; leave the other away"),
    ("data", "model", "the body of --data is sent as it is; name the model in it"),
    ("stages", "rate", "the stages have rates of their own; leave --rate away"),
    ("stages", "requests", "the stages say how long the run is; leave --requests away"),
    ("stages", "duration", "the stages say how long the run is; leave --duration away"),
    ("replay", "data", "the trace holds the requests; leave --data away"),
    ("replay", "prompts", "the trace holds the requests; leave --prompts away"),
    ("replay", "make_prompts", "the trace says how long they are; leave --make-prompts away"),
    ("replay", "rate", "the trace says when requests come; give --speed instead"),
    ("replay", "stages", "the trace says when requests come; give --speed instead"),
    ("replay", "poisson", "the trace says when requests come; leave --poisson away"),
    ("replay", "find_max", "the search chooses the rates itself; leave --replay away"),
    ("replay", "frontier", "the search chooses the rates itself; leave --replay away"),
    ("find_max", "stages", "the search chooses the rates itself; leave --stages away"),
    ("find_max", "requests", "each probe takes so long; give --duration of a probe instead"),
    ("find_max", "direct_url", "the search loads the target alone; leave --direct-url away"),
    ("find_max", "repeat", "the search confirms its answer itself; leave --repeat away"),
    ("frontier", "find_max", "one rate is searched, or one for each limit; leave one of them away"),
    ("frontier", "stages", "the search chooses the rates itself; leave --stages away"),
    ("frontier", "requests", "each probe takes so long; give --duration of a probe instead"),
    ("frontier", "direct_url", "the search loads the target alone; leave --direct-url away"),
    ("frontier", "repeat", "the search confirms its answers itself; leave --repeat away"),
)
# One that needs one of others, and why.
_NEED = (
    ("find_max", ("slo",), "it searches the highest rate that keeps within --slo; try p99=50ms"),
    (
        "poisson",
        ("rate", "stages", "find_max", "frontier"),
        "it is about when requests of a rate are sent",
    ),
    ("speed", ("replay",), "it is that of the replay"),
    ("direct_key_env", ("direct_url",), "it is the key for that"),
    ("token", ("base_url",), "it is the token for that"),
    ("token_env", ("base_url",), "it names the token for that"),
    ("direct_url", ("base_url",), "that is what it is compared with"),
    (
        "pid",
        ("base_url",),
        "the process must be of a target; a throw-away server is watched anyway",
    ),
    ("max_regression", ("compare",), "there must be a report to compare with"),
)


def refuse_contradictions(given: Given) -> None:
    """Raises WrongUsage naming both, or the one whose range its help has no room for."""
    for one, other, advice in _EXCLUDE:
        if was_given(given, one) and was_given(given, other):
            raise WrongUsage(f"{flag(one)} and {flag(other)} contradict each other: {advice}")
    for one, others, why in _NEED:
        if was_given(given, one) and not any(was_given(given, other) for other in others):
            needed = " or ".join(map(flag, others))
            raise WrongUsage(f"{flag(one)} needs {needed}: {why}")
    if given.data == "@-" and "-" in (given.token or []):
        raise WrongUsage("--data @- and --token - contradict each other: stdin is read once")
    if not 0 <= given.seed < 1 << 63:
        raise WrongUsage(f"--seed must be between 0 and 2^63 - 1, not {given.seed}")
    _refuse_one_file_twice(given)


def flag(name: str) -> str:
    """`--base-url` of `base_url`."""
    return f"--{name.replace('_', '-')}"


def _refuse_one_file_twice(given: Given) -> None:
    seen: dict[str, str] = {}
    for name in FILES:
        path = getattr(given, name)
        if path is None:
            continue
        other = seen.setdefault(str(path.absolute()), name)
        if other != name:
            raise WrongUsage(
                f"{flag(other)} and {flag(name)} contradict each other: both would write {path}; "
                "give them a file each"
            )
