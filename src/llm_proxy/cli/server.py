"""`llm-proxy server`: start, stop, restart, reload, status, health."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llm_proxy.settings import Settings, load_place, load_settings

if TYPE_CHECKING:
    from llm_proxy.server.local_server import LocalServer
    from llm_proxy.server.state import ServerState
    from llm_proxy.server.supervisor import Started

app = typer.Typer(help="Run the proxy: start, stop and look after a server.", no_args_is_help=True)

Addr = Annotated[
    str | None,
    typer.Option(
        "--addr",
        metavar="ADDRESS",
        help="Public address, HOST:PORT or unix:/PATH; port 0 is any.",
    ),
]
TlsCert = Annotated[
    Path | None,
    typer.Option("--tls-cert", metavar="FILE", help="PEM certificate (chain): speak TLS."),
]
TlsKey = Annotated[
    Path | None, typer.Option("--tls-key", metavar="FILE", help="PEM private key of --tls-cert.")
]
ProxyProtocol = Annotated[
    bool | None,
    typer.Option(
        "--proxy-protocol/--no-proxy-protocol",
        help="Require a PROXY protocol header on connections.",
    ),
]
ManageAddr = Annotated[
    str | None,
    typer.Option(
        "--manage-addr",
        metavar="HOST:PORT",
        help="Management API on an address of its own, not on the public one.",
    ),
]
Workers = Annotated[
    int | None, typer.Option("--workers", metavar="N", help="Gateway worker processes (1).")
]
Database = Annotated[
    str | None,
    typer.Option(
        "--db",
        metavar="PATH|URL",
        help="SQLite file, or URL of a server (a password is safer in DATABASE_URL).",
    ),
]
Config = Annotated[
    Path | None, typer.Option("-c", "--config", metavar="FILE", help="Provider YAML.")
]
Env = Annotated[
    Path | None,
    typer.Option("--env", metavar="FILE", help="Env file instead of the home's llm-proxy.env."),
]
PidFile = Annotated[
    Path | None, typer.Option("--pid-file", metavar="FILE", help="PID file instead of the home's.")
]
LogLevel = Annotated[
    str | None,
    typer.Option("--log-level", metavar="LEVEL", help="debug, info, warning or error."),
]
LogFormat = Annotated[
    str | None, typer.Option("--log-format", metavar="FORMAT", help="json, console or auto.")
]
LogFile = Annotated[
    Path | None,
    typer.Option("--log-file", metavar="FILE", help="Application log, instead of stderr."),
]
EventLog = Annotated[
    Path | None,
    typer.Option("--file-event-log", metavar="FILE", help="One JSON line for each request."),
]
Debug = Annotated[
    bool, typer.Option("--debug", help="Log at level debug; show tracebacks of failures.")
]
Timeout = Annotated[
    float,
    typer.Option(
        "--timeout",
        min=0,
        max=86_400,
        metavar="SECONDS",
        help="How long running requests may take to finish, a day at most.",
    ),
]
AsJSON = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@app.command()
def start(
    daemon: Annotated[
        bool, typer.Option("-d", "--daemon", help="In the background; returns when it is ready.")
    ] = False,
    addr: Addr = None,
    manage_addr: ManageAddr = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    proxy_protocol: ProxyProtocol = None,
    workers: Workers = None,
    db: Database = None,
    config: Config = None,
    env: Env = None,
    pid_file: PidFile = None,
    log_level: LogLevel = None,
    log_format: LogFormat = None,
    log_file: LogFile = None,
    file_event_log: EventLog = None,
    debug: Debug = False,
) -> None:
    """Start a server.

    Example: llm-proxy server start -d && curl http://127.0.0.1:8080/ready
    """
    given = {
        "listen_addr": addr,
        "manage_addr": manage_addr,
        "tls_cert": tls_cert,
        "tls_key": tls_key,
        "proxy_protocol": proxy_protocol,
        "workers": workers,
        "database_path": db,
        "config_path": config,
        "pid_file": pid_file,
        "log_level": "debug" if debug else log_level,
        "log_format": log_format,
        "log_file": log_file,
        "file_event_log": file_event_log,
    }
    settings = load_settings(given, env_file=env)
    flags = _kept_flags(settings, given, env)
    if daemon:
        _start_daemon(settings, flags)
    else:
        _run_in_foreground(settings, flags)


@app.command()
def stop(timeout: Timeout = 30.0, pid_file: PidFile = None, env: Env = None) -> None:
    """Stop the server: running requests finish first, within the timeout."""
    from llm_proxy.server.pidfile import running_pid

    settings = _find(pid_file, env)
    if (pid := running_pid(settings.pid_file)) is None:
        _say(f"No server is running (PID file {settings.pid_file}).")
        return
    _stop(settings, pid, timeout)


@app.command()
def reload(pid_file: PidFile = None, env: Env = None) -> None:
    """Make the server read its configuration again, without losing a request.

    It reads what it read at its start. A configuration that can't be used changes nothing.
    """
    from llm_proxy.errors import Unreachable
    from llm_proxy.server.pidfile import running_pid
    from llm_proxy.server.reload_request import request_reload

    settings = load_settings({"pid_file": pid_file}, env_file=env)
    if (pid := running_pid(settings.pid_file)) is None:
        raise Unreachable(
            f"no server is running (PID file {settings.pid_file}); "
            "start one with `llm-proxy server start -d`"
        )
    state = request_reload(pid, pid_file=settings.pid_file, state_file=settings.home.state_file)
    _say(f"The server with pid {pid} has reloaded (workers: {len(state.workers)}).")


@app.command()
def restart(
    addr: Addr = None,
    manage_addr: ManageAddr = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    proxy_protocol: ProxyProtocol = None,
    workers: Workers = None,
    db: Database = None,
    config: Config = None,
    env: Env = None,
    pid_file: PidFile = None,
    log_level: LogLevel = None,
    log_format: LogFormat = None,
    log_file: LogFile = None,
    file_event_log: EventLog = None,
    timeout: Timeout = 30.0,
) -> None:
    """Stop the server and start it again as a daemon, with the flags it was started with.

    Flags given here replace those. A configuration that can't be used leaves the server running.
    """
    from llm_proxy.server.configuration import read_configuration
    from llm_proxy.server.pidfile import running_pid

    given: dict[str, object] = {
        "listen_addr": addr,
        "manage_addr": manage_addr,
        "tls_cert": tls_cert,
        "tls_key": tls_key,
        "proxy_protocol": proxy_protocol,
        "workers": workers,
        "database_path": db,
        "config_path": config,
        "pid_file": pid_file,
        "log_level": log_level,
        "log_format": log_format,
        "log_file": log_file,
        "file_event_log": file_event_log,
    }
    running = load_settings({"pid_file": pid_file}, env_file=env)
    pid = running_pid(running.pid_file)
    state = _state_of(running, pid)
    kept = dict(state.flags) if state is not None else {}
    if (kept_env := kept.pop("env_file", None)) is not None:
        env = env or Path(kept_env)
    given = kept | {field: value for field, value in given.items() if value is not None}
    settings = load_settings(given, env_file=env)
    flags = _kept_flags(settings, given, env)
    read_configuration(settings)  # raises when the new server could not start
    if pid is None:
        _say("No server was running; starting one.")
    else:
        _stop(running, pid, timeout)
    _start_daemon(settings, flags)


@app.command()
def status(as_json: AsJSON = False, pid_file: PidFile = None, env: Env = None) -> None:
    """Show whether a server runs, where, and its workers; exit 1 when none does."""
    from llm_proxy.server.pidfile import running_pid

    settings = _find(pid_file, env)
    pid = running_pid(settings.pid_file)
    state = _state_of(settings, pid)
    found = _status(pid, state)
    if as_json:
        print(json.dumps(found))
    elif pid is None:
        _say(f"No server is running (PID file {settings.pid_file}).")
    else:
        _print_status(found, state)
    if pid is None:
        raise typer.Exit(1)


@app.command()
def health(
    url: Annotated[
        str | None,
        typer.Option("--url", metavar="URL", help="Of a server elsewhere; default: the local one."),
    ] = None,
    as_json: AsJSON = False,
    pid_file: PidFile = None,
    env: Env = None,
) -> None:
    """Ask a server's /health and /ready: exit 0 when both pass, 1 unhealthy, 5 unreachable."""
    from llm_proxy.server.probes import probe, probe_local

    if url is not None:
        url = _checked_url(url)
        health, ready = probe(url, "/health"), probe(url, "/ready")
    else:
        server = _local_server(pid_file, env)
        url = server.url
        health, ready = probe_local(server, "/health"), probe_local(server, "/ready")
    is_healthy = health.passes and ready.passes
    if as_json:
        document = {
            "url": url,
            "healthy": is_healthy,
            "health": {"status_code": health.status_code, **health.content},
            "ready": {"status_code": ready.status_code, **ready.content},
        }
        print(json.dumps(document))
    else:
        print(f"{url}/health  {health.summary()}")
        for line in health.open_circuits():
            print(f"  {line}")
        print(f"{url}/ready   {ready.summary()}")
    if not is_healthy:
        raise typer.Exit(1)


def _run_in_foreground(settings: Settings, flags: dict[str, str]) -> None:
    from llm_proxy.server.launch import run_in_foreground

    def announce(started: Started) -> None:
        _print_banner(settings, started)
        _say("Ctrl-C stops it.")

    raise typer.Exit(run_in_foreground(settings, flags=flags, announce=announce))


def _start_daemon(settings: Settings, flags: dict[str, str]) -> None:
    from llm_proxy.server.launch import start_daemon

    started = start_daemon(settings, flags=flags)
    _print_banner(settings, started)
    _say(f"It runs in the background as pid {started.pid}; `llm-proxy server stop` stops it.")


def _stop(settings: Settings, pid: int, timeout_s: float) -> None:
    from llm_proxy.server.termination import stop_server

    outcome = stop_server(settings.pid_file, _state_of(settings, pid), timeout_s=timeout_s)
    words = {
        "drained": "has stopped.",
        "cut": f"has stopped; what had not finished within {timeout_s:g} s was cut.",
        "killed": f"was killed: it had not stopped within {timeout_s:g} s.",
    }
    _say(f"The server with pid {pid} {words[outcome]}")


def _kept_flags(
    settings: Settings, given: dict[str, Any] | dict[str, object], env: Path | None
) -> dict[str, str]:
    """What `restart` starts with again: absolute, because it may run in another folder."""
    from llm_proxy.database_url import write_database

    flags = {
        field: str(getattr(settings, field)) for field, value in given.items() if value is not None
    }
    if "database_path" in flags:
        flags["database_path"] = write_database(settings.database)
    if env is not None:
        flags["env_file"] = str(env.absolute())
    return flags


def _state_of(settings: Settings, pid: int | None) -> ServerState | None:
    """What the running server wrote down; None unless it was that one."""
    from llm_proxy.server.state import read_state

    state = read_state(settings.home.state_file) if pid is not None else None
    return state if state is not None and state.pid == pid else None


def _status(pid: int | None, state: ServerState | None) -> dict[str, Any]:
    now = time.time()
    return {
        "running": pid is not None,
        "pid": pid,
        "stopping": state is not None and state.is_stopping,
        "uptime_seconds": _since(state.started_at, now) if state else None,
        "address": state.address if state else None,
        "url": _shown_url(state.address, state.tls_cert) if state else None,
        "version": state.version if state else None,
        "workers": [
            {"pid": worker.pid, "uptime_seconds": _since(worker.started_at, now)}
            for worker in (state.workers if state else [])
        ],
    }


def _since(then: float, now: float) -> float:
    return round(max(0.0, now - then), 1)


def _print_status(found: dict[str, Any], state: ServerState | None) -> None:
    from llm_proxy.manage.tables import print_details

    workers = ", ".join(
        f"{worker['pid']} (up {_shown_duration(worker['uptime_seconds'])})"
        for worker in found["workers"]
    )
    running = f"pid {found['pid']}, up {_shown_duration(found['uptime_seconds'])}"
    fields = [
        ("running", running + (", stopping" if found["stopping"] else "")),
        ("address", found["url"]),
        ("version", found["version"]),
        ("workers", workers or "none"),
    ]
    if state is not None and state.draining:
        fields.append(("draining", ", ".join(str(worker.pid) for worker in state.draining)))
    print_details(fields)


def _shown_duration(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "m"), (rest, "s")]
    shown = [f"{amount}{unit}" for amount, unit in parts if amount]
    return " ".join(shown[:2]) or "0s"


def _local_server(pid_file: Path | None, env: Path | None) -> LocalServer:
    """The running one, else the one that would be started."""
    from llm_proxy.errors import Unreachable
    from llm_proxy.server.local_server import LocalServer
    from llm_proxy.server.pidfile import running_pid

    settings = load_settings({"pid_file": pid_file}, env_file=env)
    state = _state_of(settings, running_pid(settings.pid_file))
    if state is not None and state.is_stopping:
        raise Unreachable(
            f"the server with pid {state.pid} is stopping: it finishes what runs, "
            "and takes no new connections"
        )
    if state is not None:
        return LocalServer.running(state)
    return LocalServer.to_be_started(settings)


def _checked_url(url: str) -> str:
    from llm_proxy.setting_values import parse_base_url

    try:
        return parse_base_url(url)
    except ValueError as exc:
        raise typer.BadParameter(f"must be {exc}", param_hint="--url") from exc


def _print_banner(settings: Settings, started: Started) -> None:
    from llm_proxy import __version__

    _say(f"llm-proxy {__version__} is ready on {_shown_url(started.address, settings.tls_cert)}")
    _say(f"  home              {settings.home.path}")
    if started.manage_address is not None:
        _say(f"  management API    http://{started.manage_address}")
    for path in started.created_secrets:
        _say(f"  {Path(path).name.replace('_', ' '):<17} {path} (generated)")
    if started.has_projects:
        return
    _say("Create a project with your upstream key, then a token for your programs:")
    _say("  llm-proxy manage project create --name default")
    _say("  llm-proxy manage token generate")


def _shown_url(address: str, tls_cert: object) -> str:
    if address.startswith("unix:"):
        return address
    return f"http{'' if tls_cert is None else 's'}://{address}"


def _find(pid_file: Path | None, env: Path | None) -> Settings:
    """A server can be stopped and looked at whatever became of its configuration."""
    from llm_proxy.errors import ConfigError

    try:
        return load_settings({"pid_file": pid_file}, env_file=env)
    except ConfigError as exc:
        settings = load_place(pid_file)
        _say(f"The configuration can't be used ({exc}); looking in {settings.home.path}.")
        return settings


def _say(line: str) -> None:
    print(line, file=sys.stderr)
