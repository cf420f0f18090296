"""The table of settings, from which the settings, their documentation and `.env.example` come."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from llm_proxy.address import (
    Address,
    parse_address,
    parse_listen_address,
    parse_networks,
    parse_unix_address,
    write_networks,
)
from llm_proxy.database_url import parse_database_path, parse_database_url
from llm_proxy.quantities import format_duration, format_size, parse_duration, parse_size
from llm_proxy.redis_address import MOST_DATABASES, parse_redis_url


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    field: str  # of Settings
    env: str
    parse: Callable[[str], object]  # raises ValueError with what the value must be
    doc: str
    default: str | None = None  # as one would write it; None: not set
    flag: str | None = None  # of `server start`
    is_secret: bool = False
    is_kept_in_home: bool = False  # generated there by the first start when not set
    home_file: str | None = None  # the default, within the home folder
    write: Callable[[Any], str] = str  # the inverse of parse


def parse_positive_duration(text: str) -> float:
    rule = "a duration above zero, like 30s, 5m or 1h30m"
    try:
        seconds = parse_duration(text)
    except ValueError:
        raise ValueError(rule) from None
    if seconds <= 0:
        raise ValueError(rule)
    return seconds


def parse_positive_size(text: str) -> int:
    rule = "a size above zero, like 512KB, 10MB or 1GB"
    try:
        size = parse_size(text)
    except ValueError:
        raise ValueError(rule) from None
    if size <= 0:
        raise ValueError(rule)
    return size


def parse_whole(lowest: int, highest: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        text = text.strip()
        if not (text.isascii() and text.isdigit()) or not lowest <= int(text[:12]) <= highest:
            raise ValueError(f"a whole number from {lowest} to {highest}")
        return int(text)

    return parse


def parse_rate_limit(text: str) -> str:
    from llm_proxy.limits import format_rate, parse_rate

    word = text.strip()
    try:
        return format_rate(parse_rate(f"{word}/min" if word.isdigit() else word))
    except ValueError as exc:
        raise ValueError(f"{exc} (a bare number is of a minute)") from None


def parse_bool(text: str) -> bool:
    word = text.strip().lower()
    if word in ("true", "1", "yes", "on"):
        return True
    if word in ("false", "0", "no", "off"):
        return False
    raise ValueError("true or false, on or off")


def write_bool(value: bool) -> str:
    return "true" if value else "false"


def write_switch(value: bool) -> str:
    return "on" if value else "off"


def parse_choice(*choices: str, **aliases: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        word = text.strip().lower()
        word = aliases.get(word, word)
        if word not in choices:
            raise ValueError(f"one of {', '.join(choices)}")
        return word

    return parse


def parse_path(text: str) -> Path:
    if not text.strip() or "\0" in text:
        raise ValueError("the path of a file")
    return Path(text)


def parse_audit_file(text: str) -> Path | None:
    return None if text.strip().lower() == "off" else parse_path(text)


def parse_url(text: str) -> str:
    """A URL without anything that could carry a secret or change where requests go."""
    text = text.strip()
    rule = "a URL like https://api.example.com"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError(f"{rule} with a valid host and port") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ValueError(f"{rule}, with http or https, a host and no port 0")
    if not text.isascii() or not text.isprintable() or " " in text or "\\" in text:
        raise ValueError(f"{rule}, in visible ASCII characters without a backslash")
    if "@" in parts.netloc or "?" in text or "#" in text:
        raise ValueError(f"{rule}, without user name, password, query or fragment")
    return text.rstrip("/")


def parse_base_url(text: str) -> str:
    """`parse_url`, or `unix:/PATH` of a server on this machine."""
    return str(parse_unix_address(text)) if text.startswith("unix:") else parse_url(text)


def parse_redis_address(text: str) -> Address:
    """`HOST:PORT`, the host being one to reach."""
    found = parse_address(text)
    if found.port == 0 or text.strip().startswith(":"):
        raise ValueError("HOST:PORT of a Redis server, like localhost:6379")
    return found


def parse_redis_timeout(text: str) -> float:
    rule = "a duration from 10ms to 1s, like 250ms"
    try:
        seconds = parse_duration(text)
    except ValueError:
        raise ValueError(rule) from None
    if not 0.01 <= seconds <= 1:
        raise ValueError(rule)
    return seconds


def parse_password(text: str) -> object:
    from llm_proxy.secrets import Secret

    return Secret(text)


def parse_metrics_path(text: str) -> str:
    rule = "a path like /metrics or /internal/metrics, of letters, digits, . _ and -"
    path = text.strip()
    first, *others = path.removeprefix("/").split("/")
    for segment in (first, *others):
        plain = segment.replace("-", "").replace("_", "").replace(".", "")
        if not (plain.isascii() and plain.isalnum()):
            raise ValueError(rule)
    if not path.startswith("/") or len(path) > 200:
        raise ValueError(rule)
    if first in ("manage", "admin", "health", "ready", "live"):
        raise ValueError(f"{rule}, that isn't under one of llm-proxy's own (/{first})")
    return path


def parse_name(text: str) -> str:
    return text.strip()


def parse_management_token(text: str) -> object:
    from llm_proxy.secrets import Secret

    if not text.isascii() or not text.isprintable() or " " in text or not text:
        raise ValueError("visible ASCII characters without blanks (it travels in a header)")
    return Secret(text)


def parse_encryption_key(text: str) -> object:
    from llm_proxy.secrets import Secret

    try:
        raw = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != 32:
        raise ValueError("32 bytes in base64 (make one with: openssl rand -base64 32)")
    return Secret(text.strip())


SETTINGS: tuple[Setting, ...] = (
    Setting(
        field="home",
        env="LLM_PROXY_HOME",
        parse=parse_path,
        doc="Folder of the database, PID file, logs, generated secrets and llm-proxy.env; "
        "the platform's user data folder unless set. Read from the environment and --env files.",
    ),
    Setting(
        field="listen_addr",
        env="LISTEN_ADDR",
        flag="--addr",
        default="127.0.0.1:8080",
        parse=parse_listen_address,
        doc="Public address, HOST:PORT or unix:/PATH; port 0 takes a free one, :PORT listens on "
        "all of IPv4.",
    ),
    Setting(
        field="tls_cert",
        env="TLS_CERT",
        flag="--tls-cert",
        parse=parse_path,
        doc="PEM file with the certificate of the public address and its chain; with TLS_KEY.",
    ),
    Setting(
        field="tls_key",
        env="TLS_KEY",
        flag="--tls-key",
        parse=parse_path,
        doc="PEM file with the private key of TLS_CERT, without a passphrase.",
    ),
    Setting(
        field="proxy_protocol",
        env="PROXY_PROTOCOL",
        flag="--proxy-protocol",
        default="off",
        parse=parse_bool,
        write=write_switch,
        doc="Whether connections to the public address must begin with a PROXY protocol header "
        "(v1 or v2), from TRUSTED_PROXIES only when that is set.",
    ),
    Setting(
        field="trusted_proxies",
        env="TRUSTED_PROXIES",
        default="",
        parse=parse_networks,
        write=write_networks,
        doc="Addresses or networks of the proxies in front, separated by commas (unix: those on "
        "the Unix socket), whose X-Forwarded-For names the client.",
    ),
    Setting(
        field="manage_addr",
        env="MANAGE_ADDR",
        flag="--manage-addr",
        parse=parse_address,
        doc="Address of its own for the management API; the public one then answers 404 for it.",
    ),
    Setting(
        field="workers",
        env="LLM_PROXY_WORKERS",
        flag="--workers",
        default="1",
        parse=parse_whole(1, 256),
        doc="Gateway worker processes; one for each core that may be kept busy.",
    ),
    Setting(
        field="request_timeout",
        env="REQUEST_TIMEOUT",
        default="120s",
        parse=parse_positive_duration,
        write=format_duration,
        doc="How long an upstream may take to begin its answer, where the provider file is silent.",
    ),
    Setting(
        field="max_request_size",
        env="MAX_REQUEST_SIZE",
        default="100MB",
        parse=parse_positive_size,
        write=format_size,
        doc="Largest request body that is forwarded; larger ones get 413.",
    ),
    Setting(
        field="store_grace",
        env="STORE_GRACE",
        default="60s",
        parse=parse_positive_duration,
        write=format_duration,
        doc="How long tokens that a worker knows go on working while the database is away.",
    ),
    Setting(
        field="max_concurrent_requests",
        env="MAX_CONCURRENT_REQUESTS",
        default="0",
        parse=parse_whole(0, 1_000_000),
        doc="Requests to upstreams that may run at once, in all workers together; more get 503. "
        "0: what the provider file says of limits.total, else unlimited.",
    ),
    Setting(
        field="global_rate_limit",
        env="GLOBAL_RATE_LIMIT",
        parse=parse_rate_limit,
        doc="Requests of all clients together, like 100/s or 5000/min (a bare number: a minute), "
        "or unlimited; instead of the provider file's limits.total.rate_limit.",
    ),
    Setting(
        field="ip_rate_limit",
        env="IP_RATE_LIMIT",
        parse=parse_rate_limit,
        doc="Requests from each client address (IPv6: each /64) likewise, instead of the provider "
        "file's limits.client_ip.rate_limit.",
    ),
    Setting(
        field="client_head_timeout",
        env="CLIENT_HEAD_TIMEOUT",
        default="30s",
        parse=parse_positive_duration,
        write=format_duration,
        doc="How long a client may take for the TLS handshake, and for the head of a request.",
    ),
    Setting(
        field="client_body_timeout",
        env="CLIENT_BODY_TIMEOUT",
        default="60s",
        parse=parse_positive_duration,
        write=format_duration,
        doc="Within which another 1 KiB of a request's body, or its end, must come from a client.",
    ),
    Setting(
        field="keep_alive_timeout",
        env="KEEP_ALIVE_TIMEOUT",
        default="120s",
        parse=parse_positive_duration,
        write=format_duration,
        doc="How long an idle connection of a client stays open.",
    ),
    Setting(
        field="client_write_timeout",
        env="CLIENT_WRITE_TIMEOUT",
        default="300s",
        parse=parse_positive_duration,
        write=format_duration,
        doc="How long a client may read nothing of what it is sent.",
    ),
    Setting(
        field="debug_headers",
        env="DEBUG_HEADERS",
        default="false",
        parse=parse_bool,
        write=write_bool,
        doc="Adds X-Upstream-Response-Time to responses.",
    ),
    Setting(
        field="enable_metrics",
        env="ENABLE_METRICS",
        default="true",
        parse=parse_bool,
        write=write_bool,
        doc="Serves METRICS_PATH, to anybody who reaches the address of the management API.",
    ),
    Setting(
        field="metrics_path",
        env="METRICS_PATH",
        default="/metrics",
        parse=parse_metrics_path,
        doc="Path of the metrics, in the text format of Prometheus.",
    ),
    Setting(
        field="management_token",
        env="MANAGEMENT_TOKEN",
        parse=parse_management_token,
        is_secret=True,
        is_kept_in_home=True,
        doc="Secret of the management API; generated in the home folder by the first start.",
    ),
    Setting(
        field="encryption_key",
        env="ENCRYPTION_KEY",
        parse=parse_encryption_key,
        is_secret=True,
        is_kept_in_home=True,
        doc="Key that upstream keys are stored under, 32 bytes in base64; generated likewise. "
        "Without it the stored keys are lost: keep a copy.",
    ),
    Setting(
        field="require_encryption_key",
        env="REQUIRE_ENCRYPTION_KEY",
        default="false",
        parse=parse_bool,
        write=write_bool,
        doc="Refuses to start without ENCRYPTION_KEY (set, or in the home folder) instead of "
        "generating one.",
    ),
    Setting(
        field="config_path",
        env="API_CONFIG_PATH",
        flag="--config",
        parse=parse_path,
        doc="Provider YAML; without one the built-in profile of OpenAI and Anthropic is used.",
    ),
    Setting(
        field="default_api",
        env="DEFAULT_API_PROVIDER",
        parse=parse_name,
        doc="Api for paths without an api prefix, instead of the provider file's choice.",
    ),
    Setting(
        field="openai_api_url",
        env="OPENAI_API_URL",
        parse=parse_url,
        doc="Base URL of the api named openai, instead of the provider file's.",
    ),
    Setting(
        field="database_path",
        env="DATABASE_PATH",
        flag="--db",
        home_file="llm-proxy.db",
        parse=parse_database_path,
        doc="SQLite database of projects and tokens.",
    ),
    Setting(
        field="database_url",
        env="DATABASE_URL",
        flag="--db",
        parse=parse_database_url,
        is_secret=True,
        doc="Database instead of DATABASE_PATH: postgresql://USER:PASSWORD@HOST/DATABASE, "
        "mysql://… (also MariaDB) or sqlite:///PATH.",
    ),
    Setting(
        field="database_pool_size",
        env="DATABASE_POOL_SIZE",
        default="10",
        parse=parse_whole(1, 1000),
        doc="Connections to a database server that management may use at once; each worker uses "
        "two at most. A SQLite file has one.",
    ),
    Setting(
        field="redis_url",
        env="REDIS_URL",
        parse=parse_redis_url,
        is_secret=True,
        doc="Redis or Valkey that hosts share, redis://[USER:PASSWORD@]HOST:PORT[/DATABASE], with "
        "rediss:// for TLS; limits of scope fleet are counted there.",
    ),
    Setting(
        field="redis_addr",
        env="REDIS_ADDR",
        parse=parse_redis_address,
        doc="The same as HOST:PORT, instead of REDIS_URL.",
    ),
    Setting(
        field="redis_db",
        env="REDIS_DB",
        parse=parse_whole(0, MOST_DATABASES - 1),
        doc="Number of the database at REDIS_ADDR; 0 unless set.",
    ),
    Setting(
        field="redis_password",
        env="REDIS_PASSWORD",
        parse=parse_password,
        is_secret=True,
        doc="Password of Redis, so that it need not stand in REDIS_URL.",
    ),
    Setting(
        field="redis_ca_file",
        env="REDIS_CA_FILE",
        parse=parse_path,
        doc="PEM file of the authorities that vouch for Redis, instead of the system's; for "
        "rediss://.",
    ),
    Setting(
        field="redis_timeout",
        env="REDIS_TIMEOUT",
        default="250ms",
        parse=parse_redis_timeout,
        write=format_duration,
        doc="How long Redis may take to answer, connecting included, 10ms to 1s.",
    ),
    Setting(
        field="redis_fail",
        env="REDIS_FAIL",
        default="open",
        parse=parse_choice("open", "closed"),
        doc="What limits of scope fleet do while Redis is away: open, each host keeps them by "
        "itself; closed, requests under such a limit get 503.",
    ),
    Setting(
        field="token_cleanup_interval",
        env="TOKEN_CLEANUP_INTERVAL",
        default="1h",
        parse=parse_positive_duration,
        write=format_duration,
        doc="How often tokens that have expired are marked inactive; they stay in the database.",
    ),
    Setting(
        field="pid_file",
        env="PID_FILE",
        flag="--pid-file",
        home_file="server.pid",
        parse=parse_path,
        doc="File with the process id of the running server.",
    ),
    Setting(
        field="log_level",
        env="LOG_LEVEL",
        flag="--log-level",
        default="info",
        parse=parse_choice("debug", "info", "warning", "error", warn="warning"),
        doc="Least severe level that is logged: debug, info, warning (warn) or error.",
    ),
    Setting(
        field="log_format",
        env="LOG_FORMAT",
        flag="--log-format",
        default="auto",
        parse=parse_choice("auto", "json", "console"),
        doc="Shape of log lines: json, console, or auto (console on a terminal, else json).",
    ),
    Setting(
        field="log_file",
        env="LOG_FILE",
        flag="--log-file",
        parse=parse_path,
        doc="File for the application log instead of stderr (a daemon's: server.log at home).",
    ),
    Setting(
        field="file_event_log",
        env="FILE_EVENT_LOG",
        flag="--file-event-log",
        parse=parse_path,
        doc="File that one JSON line for each proxied request is appended to.",
    ),
    Setting(
        field="log_max_size_mb",
        env="LOG_MAX_SIZE_MB",
        default="100",
        parse=parse_whole(1, 1_000_000),
        doc="Size in MB at which the file of FILE_EVENT_LOG is rotated.",
    ),
    Setting(
        field="log_max_backups",
        env="LOG_MAX_BACKUPS",
        default="5",
        parse=parse_whole(0, 10_000),
        doc="Rotated files of FILE_EVENT_LOG that are kept.",
    ),
    Setting(
        field="audit_enabled",
        env="AUDIT_ENABLED",
        default="true",
        parse=parse_bool,
        write=write_bool,
        doc="Keeps an audit log of management, refused requests and the server's own life.",
    ),
    Setting(
        field="audit_log_file",
        env="AUDIT_LOG_FILE",
        home_file="audit.jsonl",
        parse=parse_audit_file,
        write=lambda path: "off" if path is None else str(path),
        doc="File of the audit log, one JSON line for each record; off: only the database has it.",
    ),
    Setting(
        field="audit_max_size_mb",
        env="AUDIT_MAX_SIZE_MB",
        default="100",
        parse=parse_whole(1, 1_000_000),
        doc="Size in MB at which the file of AUDIT_LOG_FILE is rotated.",
    ),
    Setting(
        field="audit_max_backups",
        env="AUDIT_MAX_BACKUPS",
        default="10",
        parse=parse_whole(1, 10_000),
        doc="Rotated files of AUDIT_LOG_FILE that are kept.",
    ),
    Setting(
        field="audit_store_in_db",
        env="AUDIT_STORE_IN_DB",
        default="true",
        parse=parse_bool,
        write=write_bool,
        doc="Whether audit records stay in the database once they are in the file.",
    ),
    Setting(
        field="audit_retention",
        env="AUDIT_RETENTION",
        default="365d",
        parse=parse_positive_duration,
        write=format_duration,
        doc="How long audit records stay in the database.",
    ),
    Setting(
        field="manage_api_base_url",
        env="LLM_PROXY_MANAGE_API_BASE_URL",
        default="http://localhost:8080",
        parse=parse_base_url,
        doc="Where `llm-proxy manage` finds the management API, a URL or unix:/PATH; unless set, "
        "the running server of the home folder is asked over its private socket.",
    ),
)
