from __future__ import annotations

from pathlib import Path

import pytest

from llm_proxy.errors import ConfigError, WrongUsage
from llm_proxy.home import Home
from llm_proxy.secrets import Secret, new_encryption_key
from llm_proxy.settings import (
    SETTINGS,
    Address,
    Settings,
    load_or_create_secrets,
    load_settings,
    resolve_settings,
)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.ensure()
    return home


def _load(home: Home, flags: dict[str, object] | None = None, **environ: str) -> Settings:
    return load_settings(flags or {}, environ={"LLM_PROXY_HOME": str(home.path), **environ})


def test_defaults_need_nothing(home: Home) -> None:
    settings = _load(home)
    assert settings.home == home
    assert settings.listen_addr == Address("127.0.0.1", 8080)
    assert settings.database_path == home.path / "llm-proxy.db"
    assert settings.pid_file == home.path / "server.pid"
    assert settings.management_token is None
    assert settings.config_path is None
    assert (settings.workers, settings.request_timeout) == (1, 120.0)
    assert settings.max_request_size == 100 * 2**20


def test_the_audit_log_is_at_home_elsewhere_or_off(home: Home, tmp_path: Path) -> None:
    assert _load(home).audit_log_file == home.path / "audit.jsonl"
    assert _load(home, AUDIT_LOG_FILE=str(tmp_path / "a")).audit_log_file == tmp_path / "a"
    assert _load(home, AUDIT_LOG_FILE="off").audit_log_file is None
    assert _load(home).audit_retention == 365 * 86400


def test_table_and_settings_have_the_same_fields() -> None:
    assert [setting.field for setting in SETTINGS] == list(Settings.__struct_fields__)


def test_process_environment_is_the_default_source(
    monkeypatch: pytest.MonkeyPatch, home: Home
) -> None:
    monkeypatch.setenv("LLM_PROXY_HOME", str(home.path))
    monkeypatch.setenv("LOG_LEVEL", "WARN")
    assert load_settings({}).log_level == "warning"


def test_flag_beats_environment_beats_env_file_beats_default(home: Home) -> None:
    home.env_file.write_text("LLM_PROXY_WORKERS=2\nLOG_LEVEL=debug\nLOG_FORMAT=json\n")
    settings = _load(
        home, {"workers": 4, "log_level": None}, LLM_PROXY_WORKERS="3", LOG_LEVEL="error"
    )
    assert (settings.workers, settings.log_level, settings.log_format) == (4, "error", "json")
    assert settings.log_max_backups == 5


def test_named_env_file_replaces_that_of_the_home(home: Home, tmp_path: Path) -> None:
    home.env_file.write_text("LLM_PROXY_WORKERS=2\nLOG_LEVEL=debug\n")
    other = tmp_path / "other.env"
    other.write_text("LLM_PROXY_WORKERS=3\n")
    environ = {"LLM_PROXY_HOME": str(home.path)}
    settings = load_settings({}, environ=environ, env_file=other)
    assert (settings.workers, settings.log_level) == (3, "info")


def test_named_env_file_may_choose_the_home(tmp_path: Path) -> None:
    other = tmp_path / "other.env"
    other.write_text("LLM_PROXY_HOME=state\n")
    settings = load_settings({}, environ={}, env_file=other)
    assert settings.home.path == tmp_path / "state"


def test_env_file_of_the_home_may_not_choose_another(home: Home) -> None:
    home.env_file.write_text("LLM_PROXY_HOME=/elsewhere\n")
    with pytest.raises(ConfigError, match=r"llm-proxy\.env:1: LLM_PROXY_HOME can't be set in the"):
        _load(home)


def test_env_file_of_the_current_folder_is_never_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, home: Home
) -> None:
    (tmp_path / ".env").write_text("LOG_LEVEL=debug\nNONSENSE=1\n")
    monkeypatch.chdir(tmp_path)
    assert _load(home).log_level == "info"


def test_relative_path_counts_from_where_it_was_written(
    monkeypatch: pytest.MonkeyPatch, home: Home, tmp_path: Path
) -> None:
    home.env_file.write_text("DATABASE_PATH=data/x.db\n")
    monkeypatch.chdir(tmp_path)
    settings = _load(home, {"log_file": Path("a.log")}, FILE_EVENT_LOG="events.jsonl")
    assert settings.database_path == home.path / "data/x.db"
    assert settings.log_file == tmp_path / "a.log"
    assert settings.file_event_log == tmp_path / "events.jsonl"
    assert _load(home, PID_FILE="~/p").pid_file == Path.home() / "p"


def test_empty_value_means_not_set(home: Home) -> None:
    home.env_file.write_text("LOG_FILE=\nLLM_PROXY_WORKERS=2\n")
    settings = _load(home, LLM_PROXY_WORKERS="")
    assert settings.log_file is None
    assert settings.workers == 2


def test_bad_value_names_variable_place_rule_and_value(home: Home) -> None:
    with pytest.raises(ConfigError) as refused:
        _load(home, LLM_PROXY_WORKERS="many")
    assert str(refused.value) == (
        "environment variable LLM_PROXY_WORKERS must be a whole number from 1 to 256, not 'many'"
    )
    with pytest.raises(ConfigError, match=r"--addr must be HOST:PORT .*, not 'x'"):
        _load(home, {"listen_addr": "x"})
    home.env_file.write_text("\nMAX_REQUEST_SIZE=big\n")
    with pytest.raises(ConfigError) as refused:
        _load(home)
    assert str(refused.value) == (
        f"{home.env_file}:2: MAX_REQUEST_SIZE must be a size above zero, "
        "like 512KB, 10MB or 1GB, not 'big'"
    )


def test_bad_secret_is_refused_without_showing_it(home: Home) -> None:
    for name in ("ENCRYPTION_KEY", "MANAGEMENT_TOKEN"):
        with pytest.raises(ConfigError, match=f"environment variable {name} must be") as refused:
            load_settings({}, environ={"LLM_PROXY_HOME": str(home.path), name: "canary canary"})
        assert "canary" not in str(refused.value)


def test_password_in_a_url_is_refused_without_showing_it(home: Home) -> None:
    with pytest.raises(ConfigError, match="without user name, password") as refused:
        _load(home, OPENAI_API_URL="https://user:canary@upstream.example")
    assert "canary" not in str(refused.value)


def test_unknown_key_in_an_env_file_is_an_error_with_a_hint(home: Home) -> None:
    home.env_file.write_text("LOG_LEVEL=info\nLISTEN_ADRR=:1\n")
    with pytest.raises(ConfigError) as refused:
        _load(home)
    assert str(refused.value) == (
        f"{home.env_file}:2: LISTEN_ADRR is no setting; did you mean LISTEN_ADDR?"
    )
    home.env_file.write_text("SOMETHING=1\n")
    with pytest.raises(ConfigError, match=r":1: SOMETHING is no setting; remove it"):
        _load(home)


def test_unknown_variable_with_our_prefix_is_an_error(home: Home) -> None:
    with pytest.raises(ConfigError, match="LLM_PROXY_WORKER is no setting; did you mean LLM_PROXY"):
        _load(home, LLM_PROXY_WORKER="1")
    _load(home, LLM_PROXIES="other people's variables don't matter")


def test_missing_named_env_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="can't be read: No such file"):
        load_settings({}, environ={}, env_file=tmp_path / "no.env")


def test_sources_say_where_each_value_came_from(home: Home) -> None:
    home.env_file.write_text("LOG_LEVEL=debug\n")
    home.write_secret("management_token", Secret("token-of-the-home"))
    resolved = resolve_settings(
        {"workers": 2}, environ={"LLM_PROXY_HOME": str(home.path), "LOG_FORMAT": "json"}
    )
    assert resolved.sources["LLM_PROXY_WORKERS"] == "--workers"
    assert resolved.sources["LOG_FORMAT"] == "environment variable LOG_FORMAT"
    assert resolved.sources["LOG_LEVEL"] == f"{home.env_file}:1"
    assert resolved.sources["MANAGEMENT_TOKEN"] == str(home.path / "management_token")
    assert resolved.sources["LISTEN_ADDR"] == "default"


def test_first_start_makes_the_secrets_and_later_ones_find_them(home: Home) -> None:
    first, created = load_or_create_secrets(_load(home))
    assert created == [home.path / "management_token", home.path / "encryption_key"]
    again, created_again = load_or_create_secrets(_load(home))
    assert created_again == []
    assert again == first
    assert first.management_token is not None
    assert first.management_token.reveal() not in repr(first)


def test_secrets_that_are_set_are_not_made(home: Home) -> None:
    key = new_encryption_key()
    given = _load(home, MANAGEMENT_TOKEN="given-token", ENCRYPTION_KEY=key.reveal())
    settings, created = load_or_create_secrets(given)
    assert settings == given
    assert created == []
    assert list(home.path.iterdir()) == []


def test_no_encryption_key_is_made_where_one_is_required(home: Home) -> None:
    with pytest.raises(ConfigError, match="REQUIRE_ENCRYPTION_KEY forbids to generate one"):
        load_or_create_secrets(_load(home, REQUIRE_ENCRYPTION_KEY="true"))
    assert list(home.path.iterdir()) == []
    key = new_encryption_key()
    set_one = _load(home, REQUIRE_ENCRYPTION_KEY="true", ENCRYPTION_KEY=key.reveal())
    assert load_or_create_secrets(set_one)[0].encryption_key == key
    home.write_secret("encryption_key", key)
    kept = _load(home, REQUIRE_ENCRYPTION_KEY="true")
    assert load_or_create_secrets(kept)[0].encryption_key == key


def test_damaged_secret_of_the_home_names_its_file(home: Home) -> None:
    home.write_secret("encryption_key", Secret("canary"))
    with pytest.raises(ConfigError, match=r"encryption_key must be 32 bytes in base64") as refused:
        _load(home)
    assert "canary" not in str(refused.value)


def test_flag_that_cannot_be_used_is_wrong_usage(home: Home) -> None:
    with pytest.raises(WrongUsage, match="^--workers must be a whole number") as caught:
        _load(home, {"workers": 0})
    assert caught.value.exit_code == 2
    with pytest.raises(ConfigError) as other:
        _load(home, LLM_PROXY_WORKERS="0")
    assert other.value.exit_code == 1


def test_source_of_the_home_is_a_place_like_any_other(tmp_path: Path) -> None:
    other = tmp_path / "other.env"
    other.write_text("LLM_PROXY_HOME=state\n")
    resolved = resolve_settings({}, environ={}, env_file=other)
    assert resolved.sources["LLM_PROXY_HOME"] == f"{other}:1"


def test_one_database_is_chosen(tmp_path: Path) -> None:
    environ = {"LLM_PROXY_HOME": str(tmp_path)}
    url = "postgresql://me:sesame@h/d"

    def database(flag: str | None = None, **variables: str) -> object:
        return load_settings({"database_path": flag}, environ=environ | variables).database

    assert database() == tmp_path / "llm-proxy.db"
    assert database(DATABASE_PATH="/x.db") == Path("/x.db")
    assert database(DATABASE_URL="sqlite:////y.db") == Path("/y.db")
    assert str(database(DATABASE_URL=url)) == "postgresql://me:***@h/d"
    assert str(database("mysql://u@h/d", DATABASE_URL=url)) == "mysql://u@h/d"
    assert database("/z.db", DATABASE_URL=url, DATABASE_PATH="/x.db") == Path("/z.db")


def test_two_databases_are_refused_naming_both(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.env_file.write_text("DATABASE_PATH=/x.db\n")
    environ = {"LLM_PROXY_HOME": str(tmp_path), "DATABASE_URL": "postgresql://me:sesame@h/d"}
    with pytest.raises(ConfigError, match="two databases.*DATABASE_PATH.*DATABASE_URL") as caught:
        load_settings({}, environ=environ)
    assert "sesame" not in str(caught.value)


def test_a_wrong_url_is_not_repeated(tmp_path: Path) -> None:
    environ = {"LLM_PROXY_HOME": str(tmp_path), "DATABASE_URL": "postgresql:/me:sesame/d"}
    with pytest.raises(ConfigError, match="DATABASE_URL must be a URL like") as caught:
        load_settings({}, environ=environ)
    assert "sesame" not in str(caught.value)
