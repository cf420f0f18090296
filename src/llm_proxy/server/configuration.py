"""What a reload may change: the settings and the provider file, read and checked as a whole."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from llm_proxy.client_limits import ClientLimits
from llm_proxy.database_url import write_database
from llm_proxy.errors import ConfigError
from llm_proxy.home import Home
from llm_proxy.http1.egress import Egress, read_egress
from llm_proxy.providers import Providers, load_providers
from llm_proxy.redis_address import redis_address
from llm_proxy.secrets import Secret
from llm_proxy.server.certificate import load_context, validity_warning
from llm_proxy.server.channel import WorkerConfig
from llm_proxy.server.runtime_folder import CONTROL_SOCKET
from llm_proxy.server.writer_process import check_event_log
from llm_proxy.settings import SETTINGS, Settings, UnixAddress

logger = logging.getLogger(__name__)

# They name what the supervisor holds from its start to its end.
FIXED: Final = (
    "home",
    "listen_addr",
    "manage_addr",
    "management_token",
    "database_path",
    "database_url",
    "database_pool_size",
    "redis_url",
    "redis_addr",
    "redis_db",
    "redis_password",
    "redis_ca_file",
    "redis_timeout",
    "redis_fail",
    "pid_file",
    "enable_metrics",
    "metrics_path",
    "audit_enabled",
    "audit_log_file",
    "audit_max_size_mb",
    "audit_max_backups",
    "audit_store_in_db",
    "audit_retention",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    settings: Settings  # complete: with the secrets
    providers: Providers
    egress: Egress = Egress()

    def worker_configs(
        self, runtime_folder: Path, *, events_socket: Path | None, follows: bool = False
    ) -> list[WorkerConfig]:
        """One for each worker; `follows` says whether there are earlier ones that still run."""
        settings = self.settings
        assert settings.encryption_key is not None
        config = WorkerConfig(
            database=Secret(write_database(settings.database)),
            encryption_key=settings.encryption_key,
            providers=self.providers,
            control_socket=str(runtime_folder / CONTROL_SOCKET),
            events_socket=None if events_socket is None else str(events_socket),
            management_is_public=settings.manage_addr is None,
            max_request_size=settings.max_request_size,
            debug_headers=settings.debug_headers,
            metrics_path=settings.metrics_path if settings.enable_metrics else None,
            client_limits=ClientLimits(
                head_timeout=settings.client_head_timeout,
                body_timeout=settings.client_body_timeout,
                keep_alive_timeout=settings.keep_alive_timeout,
                write_timeout=settings.client_write_timeout,
            ),
            limit_sharers=self.limit_sharers(follows=follows),
            egress=self.egress,
            store_grace=settings.store_grace,
            tls_cert=None if settings.tls_cert is None else str(settings.tls_cert),
            tls_key=None if settings.tls_key is None else str(settings.tls_key),
            proxy_protocol=settings.proxy_protocol,
            trusted_proxies=settings.trusted_proxies,
            log_level=settings.log_level,
            log_format=settings.log_format,
            log_file=None if settings.log_file is None else str(settings.log_file),
        )
        return [config] * settings.workers

    def limit_sharers(self, *, follows: bool = False) -> int:
        """How many workers count together; 0: the only one counts by itself."""
        is_first = self.settings.workers == 1 and not follows
        return 0 if is_first and self.providers.limits.scope == "host" else self.settings.workers


def read_configuration(settings: Settings) -> Configuration:
    """Raises ConfigError for whatever can be known to be wrong before a process is started."""
    configuration, warnings = check_configuration(settings)
    for warning in warnings:
        logger.warning("%s", warning)
    if settings.file_event_log is not None:
        check_event_log(settings.file_event_log)
    return configuration


def check_configuration(settings: Settings) -> tuple[Configuration, list[str]]:
    """With warnings. Like `read_configuration`, but leaves no trace; secrets may be missing."""
    providers, warnings = load_providers(
        settings.config_path,
        request_timeout=settings.request_timeout,
        default_api=settings.default_api,
        openai_api_url=settings.openai_api_url,
        global_rate_limit=settings.global_rate_limit,
        ip_rate_limit=settings.ip_rate_limit,
        max_concurrent_requests=settings.max_concurrent_requests,
    )
    check_metrics_path(settings.metrics_path, providers)
    warnings += check_tls(settings)
    if redis_address(settings) is None and providers.limits.scope == "fleet":
        raise ConfigError(
            "limits.scope is fleet, which needs a Redis that the hosts share: "
            "set REDIS_URL or REDIS_ADDR, or use the scope host"
        )
    check_audit(settings)
    egress = read_egress(os.environ)
    return Configuration(settings=settings, providers=providers, egress=egress), warnings


def check_metrics_path(path: str, providers: Providers) -> None:
    name = path.split("/")[1]
    if name in providers.apis:
        raise ConfigError(
            f"METRICS_PATH {path} lies under the paths of the api {name!r}; choose another"
        )
    for endpoint in providers.apis[providers.default_api].allowed_endpoints:
        if endpoint == "/*":  # everything else
            continue
        is_below = endpoint.endswith("/*") and f"{path}/".startswith(endpoint[:-1])
        if path == endpoint or is_below:
            raise ConfigError(
                f"METRICS_PATH {path} would take requests for {endpoint} of the api "
                f"{providers.default_api!r}; choose another"
            )


def check_audit(settings: Settings) -> None:
    is_kept = settings.audit_log_file is not None or settings.audit_store_in_db
    if settings.audit_enabled and not is_kept:
        raise ConfigError(
            "AUDIT_LOG_FILE is off and AUDIT_STORE_IN_DB is false, so the audit log would be kept "
            "nowhere; keep it in one of them, or set AUDIT_ENABLED to false"
        )


def check_tls(settings: Settings) -> list[str]:
    """Warnings; raises ConfigError unless certificate and key, if any, can be used together."""
    if settings.tls_cert is None and settings.tls_key is None:
        return []
    if settings.tls_cert is None or settings.tls_key is None:
        missing = "TLS_CERT" if settings.tls_cert is None else "TLS_KEY"
        raise ConfigError(f"{missing} is missing: TLS needs both TLS_CERT and TLS_KEY")
    if isinstance(settings.listen_addr, UnixAddress):
        raise ConfigError(
            f"TLS isn't spoken on a Unix socket ({settings.listen_addr}): "
            "remove TLS_CERT and TLS_KEY, or listen on HOST:PORT"
        )
    load_context(settings.tls_cert, settings.tls_key)
    warning = validity_warning(settings.tls_cert, datetime.now(UTC))
    return [] if warning is None else [warning]


def check_reloadable(running: Settings, wanted: Settings) -> None:
    """Raises ConfigError when a setting was altered that a running server can't change."""
    # Another one is compared with what the database says.
    if running.encryption_key is not None and wanted.encryption_key is None:
        raise ConfigError(
            "ENCRYPTION_KEY isn't set any more, nor is it in the home folder; put it back"
        )
    by_field = {setting.field: setting for setting in SETTINGS}
    for field in FIXED:
        now, then = getattr(running, field), getattr(wanted, field)
        if now == then:
            continue
        setting = by_field[field]
        values = "" if setting.is_secret else f" from {_shown(now)} to {_shown(then)}"
        raise ConfigError(
            f"{setting.env} can't be changed{values} while the server runs; "
            "use `llm-proxy server restart`"
        )


def check_scope(running: Configuration, wanted: Configuration) -> None:
    """Raises ConfigError: what one scope has counted the other doesn't know."""
    now, then = running.providers.limits.scope, wanted.providers.limits.scope
    if now != then:
        raise ConfigError(
            f"limits.scope can't be changed from {now} to {then} while the server runs; "
            "use `llm-proxy server restart`"
        )


def _shown(value: object) -> str:
    if isinstance(value, Home):
        value = value.path
    return "unset" if value is None else str(value)
