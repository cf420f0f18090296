from __future__ import annotations

import hashlib
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.errors import StoreError
from llm_proxy.secrets import Cipher, Secret, new_encryption_key
from llm_proxy.store.legacy import LegacyData, parse_time, read_legacy
from tests.store.legacy_database import FIRST_SCHEMA, LegacyDatabase

NOW = datetime(2030, 1, 2, tzinfo=UTC)
TOKEN = "sk-AZR0xWs3cYCKMwG1Zk0Pqw"
DIGEST = hashlib.sha256(TOKEN.encode()).hexdigest()


@pytest.fixture
def old(tmp_path: Path) -> LegacyDatabase:
    return LegacyDatabase(tmp_path / "old.db")


def read(old: LegacyDatabase, *ciphers: Cipher) -> LegacyData:
    return read_legacy(old.path, ciphers, now=NOW)


def test_a_project_and_its_token_are_read_as_they_are(old: LegacyDatabase) -> None:
    old.add(
        "projects",
        id="p1",
        name="first",
        api_key="sk-plain-0123456789",
        is_active=0,
        deactivated_at="2025-02-03 04:05:06",
        created_at="2025-01-02 03:04:05.123456789+00:00",
        updated_at="2025-02-03T04:05:06Z",
    )
    old.add(
        "tokens",
        id="t1",
        token=TOKEN,
        project_id="p1",
        expires_at="2031-01-01 00:00:00+02:00",
        is_active=1,
        request_count=7,
        max_requests=10,
        cache_hit_count=3,
        created_at="2025-01-02 03:04:05",
        last_used_at="2025-01-03 03:04:05",
    )
    (project,), (token,), unusable = read(old)
    assert (project.id, project.name, project.api_key) == (
        "p1",
        "first",
        Secret("sk-plain-0123456789"),
    )
    assert not project.is_active
    assert project.deactivated_at == project.updated_at == datetime(2025, 2, 3, 4, 5, 6, tzinfo=UTC)
    assert project.created_at == datetime(2025, 1, 2, 3, 4, 5, 123456, UTC)
    assert (token.id, token.digest, token.project_id) == ("t1", DIGEST, "p1")
    assert (token.request_count, token.max_requests, token.cache_hit_count) == (7, 10, 3)
    assert token.is_active
    assert token.expires_at == datetime(2030, 12, 31, 22, tzinfo=UTC)
    assert token.last_used_at == datetime(2025, 1, 3, 3, 4, 5, tzinfo=UTC)
    assert token.masked == "sk-AZR0…0Pqw"
    assert unusable == 0


def test_a_digest_is_taken_as_it_is(old: LegacyDatabase) -> None:
    old.add("projects", id="p1", name="first", api_key="k")
    old.add("tokens", id="t1", token=DIGEST, project_id="p1")
    (token,) = read(old).tokens
    assert (token.digest, token.masked) == (DIGEST, f"sha256:{DIGEST[:8]}…")
    assert token.max_requests is None
    assert token.expires_at is None


@pytest.mark.parametrize(("stored", "cap"), [(None, None), (0, None), (-1, None), (1, 1)])
def test_zero_is_no_cap(old: LegacyDatabase, stored: int | None, cap: int | None) -> None:
    old.add("projects", id="p1", name="first", api_key="k")
    old.add("tokens", id="t1", token=TOKEN, project_id="p1", max_requests=stored)
    assert read(old).tokens[0].max_requests == cap


def test_encrypted_keys_are_read_with_the_key_that_opens_them(old: LegacyDatabase) -> None:
    cipher, other = Cipher(new_encryption_key()), Cipher(new_encryption_key())
    old.add("projects", id="p1", name="a", api_key=cipher.encrypt(Secret("sk-upstream")))
    old.add("projects", id="p2", name="b", api_key="")
    projects = read(old, other, cipher).projects
    assert [project.api_key for project in projects] == [Secret("sk-upstream"), None]
    with pytest.raises(StoreError, match=r"upstream key of project 'a' .* --old-key"):
        read(old, other)


@pytest.mark.parametrize("token", ["", "sk-short", "hash:v1:$2a$10$abc", DIGEST.upper(), "sk-é"])
def test_tokens_that_the_older_program_refused_are_left_out(
    old: LegacyDatabase, token: str
) -> None:
    old.add("projects", id="p1", name="a", api_key="k")
    old.add("tokens", id="t1", token=token, project_id="p1")
    old.add("tokens", id="t2", token=TOKEN, project_id="gone")
    assert read(old).tokens == []
    assert read(old).unusable == 2


def test_the_first_layout_is_read_too(tmp_path: Path) -> None:
    old = LegacyDatabase(tmp_path / "old.db", FIRST_SCHEMA)
    old.add("projects", id="p1", name="a", openai_api_key="sk-upstream")
    old.add("tokens", token=TOKEN, project_id="p1", expires_at="2031-01-01 00:00:00")
    (project,), (token,), _ = read(old)
    assert (project.api_key, project.created_at) == (Secret("sk-upstream"), NOW)
    assert token.is_active
    assert token.id == read(old).tokens[0].id


def test_the_old_file_stays_byte_for_byte(old: LegacyDatabase) -> None:
    old.add("projects", id="p1", name="a", api_key="k")
    content = old.path.read_bytes()
    old.path.chmod(0o400)
    read(old)
    assert old.path.read_bytes() == content
    assert list(old.path.parent.iterdir()) == [old.path]


def test_what_a_running_older_program_wrote_last_is_read(old: LegacyDatabase) -> None:
    with closing(sqlite3.connect(old.path)) as writer:
        writer.execute("PRAGMA journal_mode = WAL")
        with writer:
            writer.execute("INSERT INTO projects (id, name, api_key) VALUES ('p1', 'a', 'k')")
        assert [project.id for project in read(old).projects] == ["p1"]


def test_files_that_are_not_of_the_older_program_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no database of the older program"):
        read_legacy(tmp_path / "none.db", (), now=NOW)
    text = tmp_path / "text"
    text.write_text("not a database" * 100)
    with pytest.raises(StoreError, match="isn't a SQLite database"):
        read_legacy(text, (), now=NOW)
    empty = LegacyDatabase(tmp_path / "empty.db", "CREATE TABLE notes (text);")
    with pytest.raises(StoreError, match="it has no table projects"):
        read(empty)
    ours = LegacyDatabase(tmp_path / "ours.db", "PRAGMA application_id = 0x4C4C4D50;")
    with pytest.raises(StoreError, match="is a database of this program"):
        read(ours)


def test_values_that_make_no_sense_name_their_place(old: LegacyDatabase) -> None:
    old.add("projects", id="p1", name="a", api_key="k", created_at="yesterday")
    with pytest.raises(StoreError, match=r"created_at of project 'a' .* not 'yesterday'"):
        read(old)


def test_ids_and_names_must_be_text(old: LegacyDatabase) -> None:
    old.add("projects", id="", name="a", api_key="k")
    with pytest.raises(StoreError, match="id of project 'a' of the older database must be text"):
        read(old)


OFFSETS = st.integers(-14 * 60, 14 * 60).map(lambda m: timezone(timedelta(minutes=m)))


@given(st.datetimes(datetime(1970, 1, 2), datetime(9000, 1, 1), timezones=OFFSETS))
def test_times_are_read_however_they_were_written(at: datetime) -> None:
    text = at.isoformat()
    assert parse_time(text) == at
    assert parse_time(text.replace("T", " ")) == at
    clock, sign = text[:19].replace("T", " "), text[-6:].replace(":", "")
    nanos = f"{at.microsecond:06}789"
    assert parse_time(f"{clock}.{nanos} {sign} CET") == at
    assert parse_time(f"{clock}.{nanos} {sign} {sign} m=+0.5") == at
    assert parse_time(at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")) == at.replace(microsecond=0)


@given(st.text())
def test_any_other_text_is_no_time(text: str) -> None:
    try:
        parse_time(text)
    except ValueError:
        return
    assert text.strip()[:4].isdigit()
