from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from llm_proxy.errors import Conflict, StoreError
from llm_proxy.home import Home
from llm_proxy.secrets import Cipher, Secret, new_encryption_key
from llm_proxy.server.key_rotation import KeyPlace, Outcome, finish, rotate
from llm_proxy.settings import Settings, load_or_create_secrets, load_settings
from llm_proxy.store.database import Store
from llm_proxy.store.encryption import begin_rotation
from llm_proxy.store.projects import Project, create_project, list_projects

NOW = datetime(2030, 1, 2, tzinfo=UTC)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """With a key, and a database of three projects."""
    home = Home(tmp_path / "home")
    home.ensure()
    settings, _ = load_or_create_secrets(settings_of(home))
    store = Store(home.database, cipher=cipher_of(settings))
    store.open(migrate=True)
    for number in range(3):
        create_project(store, project(number))
    store.close()
    return home


def project(number: int) -> Project:
    return Project(
        id=f"p{number}",
        name=f"{number:04}",
        description="",
        metadata={},
        is_active=True,
        deactivated_at=None,
        created_at=NOW,
        updated_at=NOW,
        api_keys={"openai": Secret(f"sk-upstream-{number:04}-0123456789")},
    )


def settings_of(home: Home, **environ: str) -> Settings:
    return load_settings({}, environ={"LLM_PROXY_HOME": str(home.path), **environ})


def cipher_of(settings: Settings) -> Cipher:
    assert settings.encryption_key is not None
    return Cipher(settings.encryption_key)


def with_store(settings: Settings, use: Callable[[Store], object]) -> object:
    """As a command does that starts with these settings."""
    with closing(Store(settings.database, cipher=cipher_of(settings))) as store:
        store.open(migrate=False)
        return use(store)


def keys(store: Store) -> list[str]:
    projects = list_projects(store, limit=1000).items
    return [key.reveal() for project in projects for key in project.api_keys.values()]


def is_whole(settings: Settings, count: int = 3) -> bool:
    wanted = [project(number).api_keys["openai"].reveal() for number in range(count)]
    return with_store(settings, keys) == wanted


def run_rotation(
    settings: Settings,
    place: KeyPlace | None,
    new: Secret | None = None,
    *,
    is_shared: bool = False,
) -> Outcome:
    def use(store: Store) -> Outcome:
        return rotate(store, settings, new, place=place, is_shared=is_shared, at=NOW)

    outcome = with_store(settings, use)
    assert isinstance(outcome, Outcome)
    return outcome


def test_a_key_is_replaced_where_the_home_keeps_it(home: Home) -> None:
    before = settings_of(home)
    assert before.encryption_key is not None
    outcome = run_rotation(before, KeyPlace(home, is_in_env_file=False))
    after = settings_of(home)
    assert after.encryption_key not in (None, before.encryption_key)
    assert outcome.unfinished_because is None
    assert (outcome.reencrypted, outcome.was_begun) == (3, False)
    assert is_whole(after)
    with pytest.raises(StoreError, match="ENCRYPTION_KEY isn't the one"):
        is_whole(before)
    assert outcome.old_key_file == home.secret_file(f"encryption_key.{outcome.old_key}")
    assert home.read_secret(outcome.old_key_file.name) == before.encryption_key
    modes = {path.stat().st_mode & 0o777 for path in home.path.glob("encryption_key*")}
    assert modes == {0o600}


def test_a_key_is_replaced_in_the_env_file_of_the_home(home: Home) -> None:
    key = home.read_secret("encryption_key")
    assert key is not None
    home.secret_file("encryption_key").unlink()
    home.env_file.write_text(f"# mine\nENCRYPTION_KEY={key.reveal()}\nLOG_LEVEL=debug\n")
    run_rotation(settings_of(home), KeyPlace(home, is_in_env_file=True))
    after = settings_of(home)
    assert after.encryption_key not in (None, key)
    assert after.log_level == "debug"
    assert home.env_file.read_text().startswith("# mine\n")
    assert home.env_file.stat().st_mode & 0o777 == 0o600
    assert is_whole(after)


def test_the_place_of_a_key_is_told_by_its_source(home: Home) -> None:
    assert KeyPlace.of(home, str(home.path / "encryption_key")) == KeyPlace(home, False)
    assert KeyPlace.of(home, f"{home.env_file}:3") == KeyPlace(home, True)
    assert KeyPlace.of(home, "environment variable ENCRYPTION_KEY") is None
    assert KeyPlace.of(home, "/etc/other.env:3") is None


def test_a_key_from_elsewhere_works_until_its_owner_says_so(home: Home) -> None:
    old, new = settings_of(home), new_encryption_key()
    outcome = run_rotation(old, None, new)
    assert outcome.unfinished_because is not None
    assert "as ENCRYPTION_KEY" in outcome.unfinished_because
    assert settings_of(home) == old
    changed = settings_of(home, ENCRYPTION_KEY=new.reveal())
    assert is_whole(old)
    assert is_whole(changed)
    with pytest.raises(Conflict, match="still the old key here"):
        with_store(old, lambda store: finish(store, old))
    assert with_store(changed, lambda store: finish(store, changed))
    assert is_whole(changed)
    assert not with_store(changed, lambda store: finish(store, changed))


def test_a_database_that_others_may_use_is_left_to_both_keys(home: Home) -> None:
    before = settings_of(home)
    outcome = run_rotation(before, KeyPlace(home, is_in_env_file=False), is_shared=True)
    assert outcome.unfinished_because is not None
    assert "other servers" in outcome.unfinished_because
    assert is_whole(before)
    assert is_whole(settings_of(home))


def test_an_interrupted_rotation_is_completed_by_the_same_command(home: Home) -> None:
    """Killed after the first step: nobody but the database has the generated key."""
    before = settings_of(home)
    with_store(before, lambda store: begin_rotation(store, None, at=NOW))
    assert is_whole(before)
    outcome = run_rotation(before, KeyPlace(home, is_in_env_file=False))
    assert (outcome.was_begun, outcome.unfinished_because) == (True, None)
    assert is_whole(settings_of(home))


ROTATE = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from llm_proxy.home import Home
from llm_proxy.secrets import Cipher
from llm_proxy.server.key_rotation import KeyPlace, rotate
from llm_proxy.settings import load_settings
from llm_proxy.store.database import Store
home = Home(Path(sys.argv[1]))
print("ready", flush=True)
while True:
    settings = load_settings({}, environ={"LLM_PROXY_HOME": str(home.path)})
    store = Store(home.database, cipher=Cipher(settings.encryption_key))
    store.open(migrate=False)
    place = KeyPlace(home, is_in_env_file=False)
    rotate(store, settings, None, place=place, is_shared=False, at=datetime.now(UTC))
    store.close()
    print("rotated", flush=True)
"""


def test_whatever_moment_it_is_killed_at_the_key_of_the_home_opens_the_database(home: Home) -> None:
    with closing(Store(home.database, cipher=cipher_of(settings_of(home)))) as store:
        store.open(migrate=False)
        with store.writing():
            for number in range(3, 250):  # more than a batch
                create_project(store, project(number))
    seen = set()
    for delay_s in (0.0, random.uniform(0.0, 0.1), random.uniform(0.0, 0.2), None):
        kill_while_rotating(home, delay_s)
        settings = settings_of(home)
        assert is_whole(settings, 250)
        seen.add(settings.encryption_key)
    assert len(seen) > 1


def kill_while_rotating(home: Home, delay_s: float | None) -> None:
    """It begins the next rotation when one is done. None: that happens at least once."""
    command = [sys.executable, "-c", ROTATE, str(home.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        if delay_s is None:
            assert process.stdout.readline() == b"rotated\n"
        time.sleep(delay_s or 0.0)  # the moment of the kill
        process.kill()
