"""An unlucky operator's deeds against a real server."""

from __future__ import annotations

import pytest

from llm_proxy.errors import LLMProxyError
from tests.end_to_end.conftest import Launch


def test_nothing_is_acknowledged_that_went_into_a_removed_database(launch: Launch) -> None:
    server = launch()
    server.start()
    database = server.home.path / "llm-proxy.db"
    aside = database.with_suffix(".aside")
    project = {"name": "one", "api_keys": {"openai": "sk-upstream-0123456789"}}
    with server.manage() as manage, server.client() as client:
        database.rename(aside)
        with pytest.raises(LLMProxyError, match="was removed or replaced"):
            manage.create_project(project)
        assert client.get("/ready").status_code == 503
        aside.rename(database)
        assert manage.create_project(project).name == "one"
        assert client.get("/ready").status_code == 200
