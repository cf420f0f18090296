from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trustme

from llm_proxy.errors import ConfigError
from llm_proxy.home import Home
from llm_proxy.limits import Limits, RateLimit
from llm_proxy.provider_file import builtin_text
from llm_proxy.secrets import Secret
from llm_proxy.server.configuration import (
    FIXED,
    check_reloadable,
    check_scope,
    read_configuration,
)
from llm_proxy.settings import Address, Settings, UnixAddress, load_or_create_secrets


@pytest.fixture
def complete(settings: Settings) -> Settings:
    settings.home.ensure()
    return load_or_create_secrets(settings)[0]


def test_each_worker_is_configured_as_the_settings_say(complete: Settings, tmp_path: Path) -> None:
    wanted = msgspec.structs.replace(
        complete, workers=3, max_request_size=7, log_file=tmp_path / "log", debug_headers=True
    )
    configuration = read_configuration(wanted)
    socket = tmp_path / "events"
    first, *others = configuration.worker_configs(tmp_path, events_socket=socket)
    assert len(others) == 2
    assert (first.max_request_size, first.debug_headers) == (7, True)
    assert (first.events_socket, first.log_file) == (str(socket), str(tmp_path / "log"))
    assert first.database.reveal() == str(complete.database_path)
    assert set(first.providers.apis) == {"openai", "anthropic"}
    assert first.metrics_path == "/metrics"
    off = read_configuration(msgspec.structs.replace(wanted, enable_metrics=False))
    assert off.worker_configs(tmp_path, events_socket=None)[0].metrics_path is None


def test_bad_provider_file_and_event_log_are_told(complete: Settings, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml"):
        read_configuration(msgspec.structs.replace(complete, config_path=tmp_path / "none.yaml"))
    with pytest.raises(ConfigError, match="--file-event-log"):
        read_configuration(msgspec.structs.replace(complete, file_event_log=tmp_path))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"listen_addr": Address("127.0.0.1", 81)},
            "LISTEN_ADDR can't be changed from 127.0.0.1:0 to 127.0.0.1:81 while the server runs; "
            "use `llm-proxy server restart`",
        ),
        ({"manage_addr": None}, "MANAGE_ADDR can't be changed from 127.0.0.1:0 to unset "),
        ({"home": Home(Path("/elsewhere"))}, " to /elsewhere while"),
        ({"database_path": Path("/d")}, "DATABASE_PATH"),
        ({"pid_file": Path("/p")}, "PID_FILE"),
        ({"audit_log_file": None}, "AUDIT_LOG_FILE"),
    ],
)
def test_what_needs_a_restart_is_refused(
    complete: Settings, change: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        check_reloadable(complete, msgspec.structs.replace(complete, **change))
    assert sentence in str(caught.value)


def test_secrets_are_never_shown(complete: Settings) -> None:
    wanted = msgspec.structs.replace(complete, management_token=Secret("hush"))
    with pytest.raises(ConfigError) as caught:
        check_reloadable(complete, wanted)
    assert "MANAGEMENT_TOKEN" in str(caught.value)
    assert "hush" not in str(caught.value)
    assert complete.management_token is not None
    assert complete.management_token.reveal() not in str(caught.value)


def test_the_encryption_key_may_change_but_not_vanish(complete: Settings) -> None:
    """Whether it is the right one is asked of the database."""
    check_reloadable(complete, msgspec.structs.replace(complete, encryption_key=Secret("other")))
    with pytest.raises(ConfigError, match="ENCRYPTION_KEY isn't set any more"):
        check_reloadable(complete, msgspec.structs.replace(complete, encryption_key=None))


def test_everything_else_may_change(complete: Settings, tmp_path: Path) -> None:
    wanted = msgspec.structs.replace(
        complete, workers=9, log_level="error", config_path=tmp_path, debug_headers=True
    )
    check_reloadable(complete, wanted)
    assert set(FIXED) < set(Settings.__struct_fields__)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"tls_cert": Path("/c")}, "TLS_KEY is missing: TLS needs both"),
        ({"tls_key": Path("/k")}, "TLS_CERT is missing: TLS needs both"),
        (
            {
                "tls_cert": Path("/c"),
                "tls_key": Path("/k"),
                "listen_addr": UnixAddress(Path("/run/s")),
            },
            r"TLS isn't spoken on a Unix socket \(unix:/run/s\)",
        ),
        (
            {"audit_log_file": None, "audit_store_in_db": False},
            "the audit log would be kept nowhere",
        ),
        ({"metrics_path": "/openai/x"}, "METRICS_PATH /openai/x lies under .* 'openai'"),
        (
            {"metrics_path": "/v1/models"},
            "METRICS_PATH /v1/models would take requests for /v1/models",
        ),
        (
            {"metrics_path": "/v1/files/m"},
            r"would take requests for /v1/files/\* of the api 'openai'",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_told(
    complete: Settings, change: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        read_configuration(msgspec.structs.replace(complete, **change))


def test_workers_have_the_limit_of_concurrent_requests_in_common(
    complete: Settings, tmp_path: Path
) -> None:
    wanted = msgspec.structs.replace(complete, max_concurrent_requests=8, workers=3)
    configs = read_configuration(wanted).worker_configs(tmp_path, events_socket=None)
    totals = [(one.providers.limits.total.max_concurrent, one.limit_sharers) for one in configs]
    assert totals == [(8, 3)] * 3


def test_only_worker_counts_by_itself(complete: Settings, tmp_path: Path) -> None:
    (config,) = read_configuration(complete).worker_configs(tmp_path, events_socket=None)
    assert config.limit_sharers == 0


def test_limits_of_the_environment_override_those_of_the_file(
    complete: Settings, tmp_path: Path
) -> None:
    file = tmp_path / "limits.yaml"
    file.write_text(
        builtin_text() + "limits:\n  total: {rate_limit: 5/s, max_concurrent: 3}\n"
        "  client_ip: {rate_limit: 7/min, max_concurrent: 2}\n"
    )
    wanted = msgspec.structs.replace(
        complete, config_path=file, global_rate_limit="100/s", ip_rate_limit="unlimited"
    )
    limits = read_configuration(wanted).providers.limits
    assert limits.total == Limits(rate=RateLimit(100, 1, 100), max_concurrent=3)
    assert limits.client_ip == Limits(max_concurrent=2)


def test_fleet_needs_redis_and_scope_stays_what_it_was(complete: Settings, tmp_path: Path) -> None:
    file = tmp_path / "limits.yaml"
    file.write_text(builtin_text() + "limits: {scope: fleet}\n")
    fleet = msgspec.structs.replace(complete, config_path=file)
    with pytest.raises(ConfigError, match="set REDIS_URL or REDIS_ADDR"):
        read_configuration(fleet)
    fleet = msgspec.structs.replace(fleet, redis_addr=Address("127.0.0.1", 6379))
    one, other = read_configuration(complete), read_configuration(fleet)
    check_scope(one, one)
    assert (one.limit_sharers(), other.limit_sharers()) == (0, 1)
    with pytest.raises(ConfigError, match="limits.scope can't be changed from host to fleet"):
        check_scope(one, other)


def test_listening_is_configured_as_the_settings_say(complete: Settings, tmp_path: Path) -> None:
    wanted = msgspec.structs.replace(
        complete,
        workers=3,
        client_head_timeout=1.0,
        client_body_timeout=2.0,
        keep_alive_timeout=3.0,
        client_write_timeout=4.0,
        proxy_protocol=True,
        trusted_proxies=("10.0.0.0/8",),
    )
    configs = read_configuration(wanted).worker_configs(tmp_path, events_socket=None)
    limits = configs[0].client_limits
    assert (limits.head_timeout, limits.body_timeout) == (1, 2)
    assert (limits.keep_alive_timeout, limits.write_timeout) == (3, 4)
    assert configs[0].proxy_protocol
    assert configs[0].trusted_proxies == ("10.0.0.0/8",)


def test_tls_needs_a_pair_that_belongs_together_and_tcp(
    complete: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    past = datetime.now(UTC) - timedelta(days=1)
    issued = trustme.CA().issue_cert("localhost", not_after=past)
    cert.write_bytes(issued.cert_chain_pems[0].bytes())
    key.write_bytes(issued.private_key_pem.bytes())
    wanted = msgspec.structs.replace(complete, tls_cert=cert, tls_key=key)
    (config,) = read_configuration(wanted).worker_configs(tmp_path, events_socket=None)
    assert (config.tls_cert, config.tls_key) == (str(cert), str(key))
    assert "has expired on" in caplog.text
    cases: list[tuple[dict[str, Any], str]] = [
        ({"tls_key": None}, "TLS_KEY is missing"),
        ({"tls_cert": None}, "TLS_CERT is missing"),
        ({"tls_key": tmp_path / "none"}, "TLS_KEY: .*none can't be read"),
        ({"listen_addr": UnixAddress(tmp_path / "s")}, "TLS isn't spoken on a Unix socket"),
    ]
    for change, problem in cases:
        with pytest.raises(ConfigError, match=problem):
            read_configuration(msgspec.structs.replace(wanted, **change))
