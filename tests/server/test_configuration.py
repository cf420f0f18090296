from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from llm_proxy.errors import ConfigError
from llm_proxy.home import Home
from llm_proxy.secrets import Secret
from llm_proxy.server.configuration import FIXED, check_reloadable, read_configuration
from llm_proxy.settings import Address, Settings, load_or_create_secrets


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
    assert first.database == str(complete.database_path)
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
    ],
)
def test_what_needs_a_restart_is_refused(
    complete: Settings, change: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        check_reloadable(complete, msgspec.structs.replace(complete, **change))
    assert sentence in str(caught.value)


@pytest.mark.parametrize("field", ["management_token", "encryption_key"])
def test_secrets_are_never_shown(complete: Settings, field: str) -> None:
    wanted = msgspec.structs.replace(complete, **{field: Secret("hush")})
    with pytest.raises(ConfigError) as caught:
        check_reloadable(complete, wanted)
    assert field.upper() in str(caught.value)
    assert "hush" not in str(caught.value)
    assert getattr(complete, field).reveal() not in str(caught.value)


def test_everything_else_may_change(complete: Settings, tmp_path: Path) -> None:
    wanted = msgspec.structs.replace(
        complete, workers=9, log_level="error", config_path=tmp_path, debug_headers=True
    )
    check_reloadable(complete, wanted)
    assert set(FIXED) < set(Settings.__struct_fields__)
