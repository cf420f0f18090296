"""Shared by all tests: a clean environment and the event loop that the server runs on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from llm_proxy.settings import SETTINGS

_OTHERS = {
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_BASE_URL",
    "FORCE_COLOR",
    "NO_COLOR",
    "OPENAI_API_KEY",
    "OPENAI_BASE_URL",
    "XDG_DATA_HOME",
    *(f"{scheme}_PROXY" for scheme in ("ALL", "HTTP", "HTTPS", "NO")),
}
_NAMES = {setting.env for setting in SETTINGS} | _OTHERS


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting of whoever runs the tests reaches them, and nothing they do reaches that home."""
    for name in list(os.environ):
        if name.upper() in _NAMES or name.startswith("LLM_PROXY_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "user"))


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": True}
