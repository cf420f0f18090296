"""The table of settings, from which the settings, their documentation and `.env.example` come."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llm_proxy.address import parse_address, parse_listen_address, parse_networks, write_networks
from llm_proxy.database_url import parse_database_path, parse_database_url
from llm_proxy.quantities import format_duration, format_size
from llm_proxy.redis_address import MOST_DATABASES, parse_redis_url
from llm_proxy.setting_values import (
    parse_audit_file,
    parse_base_url,
    parse_bool,
    parse_choice,
    parse_encryption_key,
    parse_management_token,
    parse_metrics_path,
    parse_name,
    parse_password,
    parse_path,
    parse_positive_duration,
    parse_positive_size,
    parse_rate_limit,
    parse_redis_address,
    parse_redis_timeout,
    parse_url,
    parse_whole,
    write_bool,
    write_switch,
)


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
