from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from llm_proxy.errors import ConfigError, StoreError
from llm_proxy.home import Home
from llm_proxy.providers import load_providers
from llm_proxy.secrets import Cipher, Secret, new_encryption_key, token_digest
from llm_proxy.server.installation import FirstProject, install, refuse_existing_files
from llm_proxy.settings import Settings, load_settings
from llm_proxy.store.database import Store
from llm_proxy.store.projects import get_project
from llm_proxy.store.tokens import find_token

NOW = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
FIRST = FirstProject(
    name="first", keys={"openai": Secret("sk-canary")}, token_lifetime_s=3600, max_requests=7
)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings({}, environ={"LLM_PROXY_HOME": str(tmp_path / "home")})


def _reloaded(home: Home) -> Settings:
    return load_settings({}, environ={"LLM_PROXY_HOME": str(home.path)})


def test_project_and_token_work_with_what_was_written(settings: Settings) -> None:
    issued = install(settings, default_api="openai", project=FIRST, now=NOW)
    assert issued is not None
    assert issued.expires_at == NOW + timedelta(hours=1)
    written = _reloaded(settings.home)
    assert written.encryption_key is not None
    store = Store(written.database, cipher=Cipher(written.encryption_key))
    store.open(migrate=False)
    token = find_token(store, token_digest(issued.token.reveal().encode()))
    project = get_project(store, issued.project_id)
    store.close()
    assert token is not None
    assert (token.project_id, token.max_requests) == (issued.project_id, 7)
    assert token.expires_at == issued.expires_at
    assert project is not None
    assert project.api_keys == FIRST.keys


def test_default_api_is_the_chosen_one(settings: Settings) -> None:
    assert install(settings, default_api="anthropic", project=None, now=NOW) is None
    providers, _ = load_providers(_reloaded(settings.home).config_path)
    assert providers.default_api == "anthropic"


def test_existing_files_are_named(settings: Settings) -> None:
    home = settings.home
    refuse_existing_files(home)
    home.ensure()
    home.providers_file.touch()
    with pytest.raises(ConfigError, match=r"providers\.yaml exists already"):
        refuse_existing_files(home)


def test_failure_takes_back_the_files_and_the_database(settings: Settings) -> None:
    first = FirstProject(
        name="first", keys=FIRST.keys, token_lifetime_s=float("inf"), max_requests=None
    )
    with pytest.raises(OverflowError):
        install(settings, default_api="openai", project=first, now=NOW)
    assert list(settings.home.path.iterdir()) == []


def test_database_of_another_key_stays_and_so_do_the_files(settings: Settings) -> None:
    home = settings.home
    home.ensure()
    store = Store(settings.database_path, cipher=Cipher(new_encryption_key()))
    store.open(migrate=True)
    store.close()
    with pytest.raises(StoreError, match="ENCRYPTION_KEY isn't the one"):
        install(settings, default_api="openai", project=FIRST, now=NOW)
    assert settings.database_path.exists()
    assert not home.env_file.exists()
    assert not home.providers_file.exists()


def test_no_encryption_key_is_made_where_one_is_required(tmp_path: Path) -> None:
    environ = {"LLM_PROXY_HOME": str(tmp_path / "home"), "REQUIRE_ENCRYPTION_KEY": "true"}
    settings = load_settings({}, environ=environ)
    with pytest.raises(ConfigError, match="REQUIRE_ENCRYPTION_KEY"):
        install(settings, default_api="openai", project=FIRST, now=NOW)
    assert not settings.home.path.exists()
