"""What `llm-proxy benchmark` measures: where it is, with which keys, and who pays for it."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import typer

from llm_proxy.cli.benchmark_options import Given
from llm_proxy.errors import ConfigError, WrongUsage

if TYPE_CHECKING:
    from llm_proxy.benchmark.plan import Target
    from llm_proxy.benchmark.presets import Preset
    from llm_proxy.cli.benchmark_load import LoadChoice
    from llm_proxy.secrets import Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    proxied: Target
    direct: Target | None = None
    pid: int | None = None  # of the server that is measured
    is_throwaway: bool = False
    mock_pid: int | None = None  # of a throw-away server
    mock_key: Secret | None = None  # … that this server sends to it

    @property
    def all(self) -> tuple[Target, ...]:
        return (self.proxied,) if self.direct is None else (self.proxied, self.direct)

    @property
    def elsewhere(self) -> list[Target]:
        """Those that aren't on this machine."""
        return [target for target in self.all if not is_local(target.base_url)]


def given_targets(given: Given, preset: Preset, endpoint: str) -> Targets:
    """Of --base-url and --direct-url. Raises WrongUsage or ConfigError."""
    from llm_proxy.benchmark.plan import Target

    assert given.base_url is not None
    base_url = _without_version(parse_target_url("--base-url", given.base_url), endpoint)
    ca_file = None if given.ca_file is None else str(_trusted(given.ca_file))
    proxied = Target(
        base_url=base_url,
        keys=_tokens(given),
        key_header=preset.key_header,
        key_scheme=preset.key_scheme,
        ca_file=ca_file,
    )
    direct = None
    if given.direct_url is not None:
        key = None if given.direct_key_env is None else _from_environment(given.direct_key_env)
        direct = Target(
            base_url=_without_version(parse_target_url("--direct-url", given.direct_url), endpoint),
            keys=() if key is None else (key,),
            key_header=preset.key_header,
            key_scheme=preset.key_scheme,
            ca_file=ca_file,
        )
    return Targets(proxied=proxied, direct=direct, pid=given.pid or _own_daemon(base_url))


def parse_target_url(option: str, text: str) -> str:
    """Raises WrongUsage."""
    from llm_proxy.setting_values import parse_url

    try:
        return parse_url(text)
    except ValueError as exc:
        raise WrongUsage(f"{option} must be {exc}") from None  # it may hold a password


def _without_version(url: str, endpoint: str) -> str:
    """The base URLs of SDKs end with the version that our endpoints begin with."""
    return url.removesuffix("/v1") if endpoint.startswith("/v1/") else url


def is_local(url: str) -> bool:
    from llm_proxy.address import is_loopback

    return is_loopback(urlsplit(url).hostname or "")


def confirm_costs(targets: Targets, choice: LoadChoice, *, yes: bool) -> None:
    """Names what isn't on this machine before anything is sent there. Raises WrongUsage where
    nobody can be asked."""
    if targets.is_throwaway:
        return
    elsewhere = targets.elsewhere
    if not elsewhere:
        _tell("The target is on this machine; what it forwards to a paid API is billed.")
        return
    amount = _amount(choice, len(elsewhere))
    warning = f"{amount} will be sent to {_hosts(elsewhere)}, and may be billed there."
    if yes:
        _tell(warning)
    elif not sys.stdin.isatty():
        raise WrongUsage(f"{warning} Confirm with --yes.")
    elif not typer.confirm(f"{warning} Go on?", err=True):
        _tell("Nothing was sent.")
        raise typer.Exit(1)


def _amount(choice: LoadChoice, targets: int) -> str:
    if choice.amount is not None:
        each = " each" if targets > 1 else ""
        counted = choice.amount + 1  # the one that looks whether it can be reached
        return f"{'About' if choice.is_by_lot else 'Up to'} {counted} requests{each}"
    if choice.length_s is None:
        return "As many requests as are asked for, and those of the warm-up,"
    return f"As many requests as are answered in {choice.length_s + choice.warm_up_s:g} s"


def _hosts(targets: list[Target]) -> str:
    return " and ".join(urlsplit(target.base_url).netloc for target in targets)


def _tokens(given: Given) -> tuple[Secret, ...]:
    if given.token_env is not None:
        return (_from_environment(given.token_env),)
    return tuple(_token(text) for text in given.token or [])


def _token(text: str) -> Secret:
    from llm_proxy.cli.manage_access import read_secret_line
    from llm_proxy.secrets import Secret

    return _checked(read_secret_line("--token") if text == "-" else Secret(text), "--token")


def _from_environment(name: str) -> Secret:
    from llm_proxy.secrets import Secret

    value = os.environ.get(name, "").strip()
    if not value:
        raise WrongUsage(
            f"the variable {name[:60]!r} isn't set; put the key into it, or name another"
        )
    return _checked(Secret(value), f"the variable {name}")


def _checked(secret: Secret, where: str) -> Secret:
    text = secret.reveal()
    if not text or not (text.isascii() and text.isprintable()) or " " in text:
        raise WrongUsage(f"{where} must be visible ASCII characters without spaces")
    return secret


def _trusted(path: Path) -> Path:
    """Tried before anything is started."""
    from llm_proxy.http1.tls import client_context

    try:
        client_context(str(path))
    except ConfigError as exc:
        raise WrongUsage(f"--{str(exc).replace('_', '-', 1)}") from exc
    return path.absolute()


def _own_daemon(base_url: str) -> int | None:
    """The pid of this home's server, when it is the target."""
    from llm_proxy.home import Home
    from llm_proxy.server.local_server import LocalServer
    from llm_proxy.server.pidfile import running_pid
    from llm_proxy.server.state import read_state

    home = Home.default(os.environ)
    state = read_state(home.state_file)
    if state is None or state.pid != running_pid(home.pid_file) or not is_local(base_url):
        return None
    own, target = urlsplit(LocalServer.running(state).url), urlsplit(base_url)
    is_same = own.scheme == target.scheme and own.netloc and own.port == target.port
    return state.pid if is_same else None


def _tell(text: str) -> None:
    print(text, file=sys.stderr)
