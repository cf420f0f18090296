from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.database_url import DatabaseUrl, parse_database, write_database
from llm_proxy.secrets import Secret

TEXTS = st.text(st.characters(blacklist_categories=("C", "Z")), min_size=1, max_size=20)
HOSTS = st.sampled_from(["h", "db.example.com", "127.0.0.1", "::1", "/run/socket"])


def parsed(text: str) -> DatabaseUrl:
    found = parse_database(text)
    assert isinstance(found, DatabaseUrl)
    return found


def test_all_parts_are_read() -> None:
    text = (
        "postgres://me%40x:p%3Aw%2F@[::1]:6432/my%20data"
        "?sslmode=verify-full&sslrootcert=/ca.pem&connect_timeout=7"
    )
    assert parsed(text) == DatabaseUrl(
        engine="postgresql",
        host="::1",
        port=6432,
        user="me@x",
        password=Secret("p:w/"),
        name="my data",
        sslmode="verify-full",
        sslrootcert="/ca.pem",
        connect_timeout_s=7,
    )


@pytest.mark.parametrize(
    ("text", "engine", "port"),
    [
        ("postgresql://u@h/d", "postgresql", 5432),
        ("mysql://u@h/d", "mysql", 3306),
        ("mariadb://u@h/d", "mysql", 3306),
    ],
)
def test_what_is_left_out_is_as_usual(text: str, engine: str, port: int) -> None:
    url = parsed(text)
    assert (url.engine, url.port, url.password, url.sslmode) == (engine, port, None, "prefer")


def test_a_socket_is_given_as_the_host() -> None:
    url = parsed("postgresql://u@/d?host=/run/postgresql")
    assert url.host == "/run/postgresql"
    assert url.is_on_unix_socket


def test_a_password_is_not_shown() -> None:
    url = parsed("mysql://u:sesame@h:3307/d")
    assert str(url) == f"{url}" == "mysql://u:***@h:3307/d"
    assert "sesame" not in repr(url)
    assert url.reveal() == write_database(url) == "mysql://u:sesame@h:3307/d"


@given(
    engine=st.sampled_from(["postgresql", "mysql"]),
    host=HOSTS,
    port=st.integers(1, 65535),
    user=TEXTS,
    password=st.none() | TEXTS.map(Secret),
    name=TEXTS,
    sslmode=st.sampled_from(["prefer", "disable", "verify-full"]),
    sslcert=st.none() | TEXTS,
)
def test_what_is_written_is_read_as_it_was(**parts: object) -> None:
    url = DatabaseUrl(**parts)  # type: ignore[arg-type]
    assert parse_database(write_database(url)) == url


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused_without_being_repeated(text: str) -> None:
    try:
        parse_database(f"postgresql://{text}")
    except ValueError as exc:
        assert "postgresql://USER" in str(exc)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("x.db", "x.db"),
        ("sqlite:///rel.db", "rel.db"),
        ("sqlite:////abs/x.db", "/abs/x.db"),
    ],
)
def test_a_file_is_a_path(text: str, path: str) -> None:
    assert parse_database(text) == Path(path)
    assert write_database(Path(path)) == path


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "the path of a file"),
        (" ", "the path of a file"),
        ("a\0b", "the path of a file"),
        (":memory:", "the path of a file"),
        ("sqlite:///", "the path of a file"),
        ("sqlite://x.db", "a URL like"),
        ("oracle://u@h/d", "a URL like"),
        ("postgresql://u@h", "with a user and the name of a database"),
        ("postgresql://u@h/", "with a user and the name of a database"),
        ("postgresql://h/d", "with a user and the name of a database"),
        ("postgresql://u@h:0/d", "with a user and the name of a database"),
        ("postgresql://u@h:x/d", "with a valid host and port"),
        ("postgresql://u@h:99999/d", "with a valid host and port"),
        ("postgresql://u@[::1/d", "with a valid host and port"),
        ("postgresql://u:a#b@h/d", "percent-encoded"),
        ("postgresql://u@h/d?sslmode", "with parameters like"),
        ("postgresql://u@h/d?options=-cfsync=off", "only host, sslmode"),
        ("postgresql://u@h/d?sslmode=maybe", "sslmode is one of disable, prefer"),
        ("postgresql://u@h/d?connect_timeout=0", "from 1 to 600 seconds"),
        ("postgresql://u@h/d%00", "without control characters"),
    ],
)
def test_what_can_not_be_meant_is_refused(text: str, rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        parse_database(text)
