from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from llm_proxy.home import Home
from llm_proxy.secrets import Cipher, Secret, new_encryption_key
from llm_proxy.settings import load_settings
from llm_proxy.store.database import Store
from llm_proxy.store.legacy_import import has_legacy_tokens
from llm_proxy.store.projects import list_projects
from tests.store.legacy_database import LegacyDatabase

Run = Callable[..., Any]
TOKEN = "sk-AZR0xWs3cYCKMwG1Zk0Pqw"
UPSTREAM_KEY = "sk-upstream-0123456789"


@pytest.fixture
def old(tmp_path: Path) -> LegacyDatabase:
    """Of the older program, with one project and its token."""
    old = LegacyDatabase(tmp_path / "old.db")
    old.add("projects", id="p1", name="first", api_key=UPSTREAM_KEY)
    old.add("tokens", id="t1", token=TOKEN, project_id="p1")
    return old


@pytest.fixture
def home(llm_proxy: Run, old: LegacyDatabase) -> Home:
    """With a generated key, and that project in its database."""
    taken = llm_proxy("db", "encrypt", "--from", str(old.path), "--yes")
    assert taken.exit_code == 0, taken.err
    return Home.default(os.environ)


def stored_keys(**environ: str) -> list[dict[str, Secret]]:
    """As a server reads them that starts now."""
    settings = load_settings({}, environ={**os.environ, **environ})
    assert settings.encryption_key is not None
    with closing(Store(settings.database, cipher=Cipher(settings.encryption_key))) as store:
        store.open(migrate=False)
        return [dict(project.api_keys) for project in list_projects(store, limit=9).items]


def test_projects_and_tokens_of_the_older_program_are_taken_over(
    llm_proxy: Run, old: LegacyDatabase
) -> None:
    taken = llm_proxy("db", "encrypt", "--from", str(old.path), "--yes")
    assert taken.exit_code == 0, taken.err
    assert [line.split() for line in taken.out.splitlines()][1:] == [
        ["projects", "1", "0", "0"],
        ["tokens", "1", "0", "0"],
    ]
    assert stored_keys() == [{"openai": Secret(UPSTREAM_KEY)}]
    again = llm_proxy("db", "encrypt", "--from", str(old.path), "--yes", "--json")
    document = json.loads(again.out)
    assert document["projects"] == {"imported": 0, "skipped": 1}
    assert document["tokens"] == {"imported": 0, "skipped": 1, "unusable": 0}
    settings = load_settings({})
    with closing(Store(settings.database, cipher=None)) as store:
        store.open(migrate=False)
        assert has_legacy_tokens(store)


def test_keys_of_the_older_program_are_those_of_an_api(llm_proxy: Run, old: LegacyDatabase) -> None:
    command = ("db", "encrypt", "--from", str(old.path), "--yes", "--api")
    refused = llm_proxy(*command, "elsewhere")
    assert refused.exit_code == 2
    assert "--api must be one of openai, anthropic" in " ".join(refused.err.split())
    assert llm_proxy(*command, "anthropic").exit_code == 0
    assert stored_keys() == [{"anthropic": Secret(UPSTREAM_KEY)}]


def test_keys_that_the_older_program_encrypted_need_its_key(
    llm_proxy: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = new_encryption_key()
    old = LegacyDatabase(tmp_path / "old.db")
    sealed = Cipher(key).encrypt(Secret(UPSTREAM_KEY))
    old.add("projects", id="p1", name="first", api_key=sealed)
    command = ("db", "encrypt", "--from", str(old.path), "--yes")
    refused = llm_proxy(*command)
    assert refused.exit_code == 1
    assert "--old-key" in refused.err
    assert not Home.default(os.environ).path.exists()
    file = tmp_path / "old-key"
    file.write_text(key.reveal() + "\n")
    assert (
        llm_proxy(*command, "--old-key", str(file), "--db", str(tmp_path / "1.db")).exit_code == 0
    )
    piped = llm_proxy(
        *command, "--old-key", "-", "--db", str(tmp_path / "2.db"), stdin=f"{key.reveal()}\n"
    )
    assert piped.exit_code == 0, piped.err
    monkeypatch.setenv("OLD_ENCRYPTION_KEY", key.reveal())
    assert llm_proxy(*command).exit_code == 0
    assert stored_keys() == [{"openai": Secret(UPSTREAM_KEY)}]


def test_a_script_must_confirm_what_it_takes_over(llm_proxy: Run, old: LegacyDatabase) -> None:
    refused = llm_proxy("db", "encrypt", "--from", str(old.path))
    assert refused.exit_code == 2
    assert "--yes" in refused.err
    assert not Home.default(os.environ).path.exists()


def test_a_key_made_for_a_database_that_has_another_is_taken_back(
    llm_proxy: Run, old: LegacyDatabase, home: Home
) -> None:
    home.secret_file("encryption_key").unlink()
    refused = llm_proxy("db", "encrypt", "--from", str(old.path), "--yes")
    assert refused.exit_code == 1
    assert "ENCRYPTION_KEY isn't the one" in refused.err
    assert home.read_secret("encryption_key") is None


def test_no_key_is_made_where_one_is_required(
    llm_proxy: Run, old: LegacyDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUIRE_ENCRYPTION_KEY", "true")
    refused = llm_proxy("db", "encrypt", "--from", str(old.path), "--yes")
    assert refused.exit_code == 1
    assert "REQUIRE_ENCRYPTION_KEY" in refused.err


def test_what_is_encrypted_is_counted(llm_proxy: Run, home: Home) -> None:
    counted = llm_proxy("db", "encrypt")
    assert counted.out.splitlines()[1].split() == ["upstream", "keys", "0", "1"]
    document = json.loads(llm_proxy("db", "encrypt", "--json").out)
    assert document == {
        "database": str(home.database),
        "api_keys": {"encrypted": 0, "already": 1},
    }
    assert llm_proxy("db", "encrypt", "--api", "openai").exit_code == 2
