from __future__ import annotations

from pathlib import Path

from llm_proxy.home import Home
from llm_proxy.setting import SETTINGS
from llm_proxy.setting_docs import env_example, settings_table
from llm_proxy.settings import load_settings


def test_example_sets_what_has_a_default_and_comments_out_the_rest() -> None:
    lines = env_example().splitlines()
    for setting in SETTINGS:
        wanted = f"{setting.env}={setting.default}" if setting.default else f"# {setting.env}="
        assert wanted in lines


def test_example_changes_nothing(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    environ = {"LLM_PROXY_HOME": str(home.path)}
    path = tmp_path / "example.env"
    path.write_text(env_example())
    assert load_settings({}, environ=environ, env_file=path) == load_settings({}, environ=environ)


def test_table_has_a_row_for_each_setting() -> None:
    rows = settings_table().splitlines()[2:]
    assert [row.split("|")[1].strip() for row in rows] == [f"`{s.env}`" for s in SETTINGS]
    assert all(row.count(" | ") == 3 for row in rows)
