from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from llm_proxy.benchmark.plan import Target
from llm_proxy.benchmark.presets import PRESETS
from llm_proxy.cli.benchmark_throwaway import throwaway_targets


@pytest.fixture(autouse=True)
def short_folders(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """They hold sockets."""
    with tempfile.TemporaryDirectory(prefix="llmp-") as name:
        monkeypatch.setenv("XDG_RUNTIME_DIR", name)
        yield Path(name)


def ask(target: Target) -> httpx.Response:
    preset = PRESETS["messages"]
    key = {target.key_header: f"{target.key_scheme} {target.keys[0].reveal()}".strip()}
    return httpx.post(
        f"{target.base_url}{preset.endpoint}",
        content=preset.body(preset.asking("Hello")),
        headers={**key, **dict(preset.headers), "content-type": "application/json"},
        trust_env=False,
    )


def test_server_and_mock_answer_alike_and_leave_nothing(short_folders: Path) -> None:
    with throwaway_targets(PRESETS["messages"], tokens=2) as targets:
        assert len({key.reveal() for key in targets.proxied.keys}) == 2
        assert targets.is_throwaway
        assert targets.pid is not None
        assert targets.direct is not None
        assert targets.mock_pid is not None and targets.mock_key is not None
        assert targets.mock_key.reveal() != targets.direct.keys[0].reveal()
        through, direct = ask(targets.proxied), ask(targets.direct)
        assert through.status_code == direct.status_code == 200
        assert through.content == direct.content
        assert "server-timing" in through.headers
        assert "server-timing" not in direct.headers
    with pytest.raises(httpx.ConnectError):
        ask(targets.proxied)
    assert list(short_folders.iterdir()) == []
