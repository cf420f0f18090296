from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from llm_proxy.database_url import DatabaseUrl
from llm_proxy.errors import StoreError
from llm_proxy.home import Home
from llm_proxy.secrets import Cipher, Secret, new_encryption_key
from llm_proxy.server.state import ServerState, write_state
from llm_proxy.settings import load_settings
from llm_proxy.store.database import Store
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


def test_a_generated_key_replaces_that_of_the_home(llm_proxy: Run, home: Home) -> None:
    before = home.read_secret("encryption_key")
    rotated = llm_proxy("db", "rotate-key", "--generate")
    assert rotated.exit_code == 0, rotated.err
    after = home.read_secret("encryption_key")
    assert before is not None
    assert after not in (None, before)
    assert "re-encrypted: 1." in rotated.err
    assert "The old key opens nothing any more." in rotated.err
    assert before.reveal() not in rotated.out + rotated.err
    assert stored_keys() == [{"openai": Secret(UPSTREAM_KEY)}]
    document = json.loads(llm_proxy("db", "rotate-key", "--generate", "--json").out)
    assert (document["finished"], document["reencrypted"]) == (True, 1)
    assert document["old_key_file"].endswith(document["old_key_id"])


def test_a_key_of_the_environment_is_rotated_in_two_steps(
    llm_proxy: Run, home: Home, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    old, new = home.read_secret("encryption_key"), new_encryption_key().reveal()
    assert old is not None
    home.secret_file("encryption_key").unlink()
    monkeypatch.setenv("ENCRYPTION_KEY", old.reveal())
    refused = llm_proxy("db", "rotate-key", "--generate")
    assert refused.exit_code == 2
    assert "NEW_ENCRYPTION_KEY" in refused.err
    rotated = llm_proxy("db", "rotate-key", "--new-key", "-", stdin=f"{new}\n")
    assert rotated.exit_code == 0, rotated.err
    assert "db rotate-key --finish" in rotated.err
    assert stored_keys() == stored_keys(ENCRYPTION_KEY=new)
    other = tmp_path / "other"
    other.write_text(new_encryption_key().reveal())
    second = llm_proxy("db", "rotate-key", "--new-key", str(other))
    assert second.exit_code == 1
    assert "isn't finished" in second.err
    early = llm_proxy("db", "rotate-key", "--finish")
    assert early.exit_code == 1
    assert "still the old key here" in early.err
    monkeypatch.setenv("ENCRYPTION_KEY", new)
    assert "the old key opens nothing" in llm_proxy("db", "rotate-key", "--finish").err
    again = llm_proxy("db", "rotate-key", "--finish", "--json")
    assert json.loads(again.out)["finished"] is False
    assert "no rotation" in llm_proxy("db", "rotate-key", "--finish").err


def test_a_key_given_by_the_environment_replaces_that_of_the_home(
    llm_proxy: Run, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = new_encryption_key()
    monkeypatch.setenv("NEW_ENCRYPTION_KEY", new.reveal())
    rotated = llm_proxy("db", "rotate-key", "--yes")
    assert rotated.exit_code == 0, rotated.err
    assert home.read_secret("encryption_key") == new


def test_another_database_leaves_the_key_of_the_home_alone(
    llm_proxy: Run, home: Home, old: LegacyDatabase, tmp_path: Path
) -> None:
    other = str(tmp_path / "other.db")
    assert llm_proxy("db", "encrypt", "--from", str(old.path), "-y", "--db", other).exit_code == 0
    assert llm_proxy("db", "rotate-key", "--generate", "--db", other).exit_code == 2
    before, new = home.read_secret("encryption_key"), new_encryption_key().reveal()
    rotated = llm_proxy("db", "rotate-key", "--new-key", "-", "--db", other, stdin=new)
    assert rotated.exit_code == 0, rotated.err
    assert home.read_secret("encryption_key") == before


def test_the_database_of_the_running_server_is_that_of_its_home(
    llm_proxy: Run, home: Home, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere.db"
    home.database.rename(elsewhere)
    state = ServerState(
        pid=1,
        address="127.0.0.1:1",
        manage_address=None,
        version="0",
        started_at=0.0,
        runtime_folder=None,
        workers=[],
        flags={"database_path": str(elsewhere)},
    )
    write_state(home.state_file, state)
    before = home.read_secret("encryption_key")
    rotated = llm_proxy("db", "rotate-key", "--generate", "--db", str(elsewhere))
    assert rotated.exit_code == 0, rotated.err
    assert home.read_secret("encryption_key") != before


@pytest.mark.parametrize(
    ("arguments", "stdin", "wrong"),
    [
        (("--generate", "--finish"), "", "only one of"),
        (("--new-key", "-"), "short\n", "32 bytes in base64"),
        (("--new-key", "-"), "", "nothing came from stdin"),
        (("--new-key", "/nowhere/key"), "", "can't be read"),
        ((), "", "NEW_ENCRYPTION_KEY"),
    ],
)
def test_wrong_usage_changes_nothing(
    llm_proxy: Run, home: Home, arguments: tuple[str, ...], stdin: str, wrong: str
) -> None:
    before = home.read_secret("encryption_key")
    refused = llm_proxy("db", "rotate-key", *arguments, stdin=stdin)
    assert refused.exit_code == 2
    assert wrong in " ".join(refused.err.replace("│", " ").split())
    assert "short" not in refused.err
    assert home.read_secret("encryption_key") == before


def test_without_any_key_there_is_nothing_to_rotate(llm_proxy: Run) -> None:
    refused = llm_proxy("db", "rotate-key", "--finish")
    assert refused.exit_code == 1
    assert "there is no ENCRYPTION_KEY here" in refused.err


def test_the_new_key_is_asked_twice_and_never_shown(
    home: Home, in_terminal: Callable[..., tuple[int, str]]
) -> None:
    new = new_encryption_key()
    code, shown = in_terminal(
        ["db", "rotate-key"],
        [
            ("New encryption key:?hidden", f"{new.reveal()}\n"),
            ("Repeat for confirmation:?hidden", f"{new.reveal()}\n"),
            ("Rotate the encryption key", "y\n"),
        ],
    )
    assert code == 0, shown
    assert new.reveal() not in shown
    assert home.read_secret("encryption_key") == new


def test_a_database_server_is_left_to_both_keys_until_the_end(
    llm_proxy: Run,
    old: LegacyDatabase,
    postgres_url: DatabaseUrl,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Other servers may use it, which nobody can ask."""
    monkeypatch.setenv("DATABASE_URL", postgres_url.reveal())
    assert llm_proxy("db", "encrypt", "--from", str(old.path), "--yes").exit_code == 0
    home = Home.default(os.environ)
    before = home.read_secret("encryption_key")
    assert before is not None
    rotated = llm_proxy("db", "rotate-key", "--generate")
    assert rotated.exit_code == 0, rotated.err
    assert "other servers may use the database" in rotated.err
    assert home.read_secret("encryption_key") != before
    assert stored_keys() == stored_keys(ENCRYPTION_KEY=before.reveal())
    assert "the old key opens nothing" in llm_proxy("db", "rotate-key", "--finish").err
    assert stored_keys() == [{"openai": Secret(UPSTREAM_KEY)}]
    with pytest.raises(StoreError, match="ENCRYPTION_KEY isn't the one"):
        stored_keys(ENCRYPTION_KEY=before.reveal())
