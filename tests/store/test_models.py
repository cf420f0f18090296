from __future__ import annotations

import peewee
import pytest

from llm_proxy.store.database import Store
from llm_proxy.store.models import ApiKeyRow, ChangeRow, MetaRow, ProjectRow, TokenRow


@pytest.mark.parametrize("model", [ProjectRow, ApiKeyRow, TokenRow, ChangeRow, MetaRow])
def test_a_model_has_the_columns_that_the_migrations_make(
    store: Store, model: type[peewee.Model]
) -> None:
    meta = model._meta
    with store.reading() as database:
        columns = {column.name: column for column in database.get_columns(meta.table_name)}
    assert set(meta.columns) == set(columns)
    assert {name: field.null for name, field in meta.columns.items() if name != "id"} == {
        name: column.null for name, column in columns.items() if name != "id"
    }
