from __future__ import annotations

import psycopg
import pytest

from llm_proxy.database_url import DatabaseUrl, parse_database
from llm_proxy.errors import StoreError, StoreUnavailable, StoreUnreachable
from llm_proxy.store.engines.postgres_failures import failure_of


@pytest.fixture
def url() -> DatabaseUrl:
    found = parse_database("postgresql://u:sesame@h/d")
    assert isinstance(found, DatabaseUrl)
    return found


@pytest.mark.parametrize(
    ("failure", "kind", "sentence"),
    [
        (psycopg.errors.LockNotAvailable(), StoreUnavailable, "locked by another process"),
        (psycopg.errors.QueryCanceled(), StoreUnavailable, "took too long"),
        (psycopg.errors.AdminShutdown(), StoreUnavailable, "shutting down"),
        (psycopg.errors.TooManyConnections(), StoreUnavailable, "has no room"),
        (psycopg.errors.SerializationFailure(), StoreUnavailable, "met another one"),
        (psycopg.errors.ReadOnlySqlTransaction(), StoreUnavailable, "use the primary"),
        (psycopg.errors.InvalidPassword(), StoreError, "refuses the user"),
        (psycopg.errors.InsufficientPrivilege(), StoreError, "denies its user"),
        (psycopg.errors.ConnectionFailure("gone"), StoreUnreachable, "can't be reached"),
        (psycopg.OperationalError("x failed: FATAL:  too many clients"), StoreUnavailable, "room"),
        (psycopg.OperationalError("the connection is lost"), StoreUnreachable, "is lost.; is it"),
        (psycopg.InterfaceError("closed"), StoreUnavailable, "is closed"),
        (psycopg.DataError("sesame can't be\nstored"), StoreError, r"failed: \*\*\* can't be$"),
    ],
)
def test_each_failure_is_one_sentence(
    url: DatabaseUrl, failure: Exception, kind: type[StoreError], sentence: str
) -> None:
    found = failure_of(failure, url)
    assert type(found) is kind
    with pytest.raises(StoreError, match=sentence):
        raise found
    assert "sesame" not in str(found)
