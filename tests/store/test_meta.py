from __future__ import annotations

from llm_proxy.store.database import Store
from llm_proxy.store.meta import delete_meta, read_meta, write_meta


def test_values_are_written_read_and_deleted_by_name(store: Store) -> None:
    with store.writing() as database:
        write_meta(database, "one", "1")
        write_meta(database, "two", "2")
        write_meta(database, "one", "first")
    with store.reading() as database:
        assert read_meta(database, ("one", "two", "three")) == {"one": "first", "two": "2"}
    with store.writing() as database:
        assert delete_meta(database, ("one", "three")) == 1
        assert read_meta(database, ("one", "two")) == {"two": "2"}
