from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from llm_proxy.errors import ConfigError
from llm_proxy.providers import Providers, load_providers


def test_no_file_means_the_builtin_apis() -> None:
    providers, warnings = load_providers(None)
    assert list(providers.apis) == ["openai", "anthropic"]
    assert warnings == []


def test_settings_reach_the_apis() -> None:
    providers, _ = load_providers(
        None, request_timeout=9, default_api="anthropic", openai_api_url="https://x.example"
    )
    assert providers.default_api == "anthropic"
    assert providers.apis["openai"].base_url == "https://x.example"
    assert {api.timeouts.response_header for api in providers.apis.values()} == {9}


def test_named_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no\.yaml can't be read: No such file"):
        load_providers(tmp_path / "no.yaml")


def test_providers_travel_as_json() -> None:
    providers, _ = load_providers(None)
    assert msgspec.json.decode(msgspec.json.encode(providers), type=Providers) == providers
