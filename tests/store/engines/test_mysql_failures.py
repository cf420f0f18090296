from __future__ import annotations

import pymysql
import pytest

from llm_proxy.database_url import DatabaseUrl, parse_database
from llm_proxy.errors import StoreError, StoreUnavailable, StoreUnreachable
from llm_proxy.store.engines.mysql_failures import failure_of


@pytest.mark.parametrize(
    ("failure", "kind", "sentence"),
    [
        (pymysql.OperationalError(1205, "Lock wait"), StoreUnavailable, "locked by another"),
        (pymysql.OperationalError(1969, "max"), StoreUnavailable, "took too long"),
        (pymysql.OperationalError(1040, "Too many"), StoreUnavailable, "has no room"),
        (pymysql.OperationalError(1045, "Access"), StoreError, "refuses the user"),
        (pymysql.OperationalError(1049, "Unknown"), StoreError, "doesn't exist"),
        (pymysql.OperationalError(2003, "refused\nmore"), StoreUnreachable, "reached .refused.;"),
        (pymysql.InterfaceError(0, ""), StoreUnavailable, "is closed"),
        (pymysql.DataError(1406, "sesame too long"), StoreError, r"failed: \*\*\* too long$"),
    ],
)
def test_each_failure_is_one_sentence(
    failure: Exception, kind: type[StoreError], sentence: str
) -> None:
    url = parse_database("mysql://u:sesame@h/d")
    assert isinstance(url, DatabaseUrl)
    found = failure_of(failure, url)
    assert type(found) is kind
    with pytest.raises(StoreError, match=sentence):
        raise found
    assert "sesame" not in str(found)
