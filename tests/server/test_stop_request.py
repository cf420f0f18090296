from __future__ import annotations

import stat
from pathlib import Path

import pytest

from llm_proxy.server.runtime_folder import STOP_REQUEST
from llm_proxy.server.stop_request import leave_stop_request, take_stop_request


def test_request_counts_once_and_is_private(tmp_path: Path) -> None:
    assert leave_stop_request(tmp_path, 7200.5)
    assert stat.S_IMODE((tmp_path / STOP_REQUEST).stat().st_mode) == 0o600
    assert take_stop_request(tmp_path) == 7200.5
    assert take_stop_request(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "soon", "-1", "nan", "inf", "\xff"])
def test_nonsense_is_no_request(tmp_path: Path, text: str) -> None:
    (tmp_path / STOP_REQUEST).write_text(text, "utf-8")
    assert take_stop_request(tmp_path) is None


def test_folder_that_is_gone_is_no_failure(tmp_path: Path) -> None:
    assert not leave_stop_request(tmp_path / "gone", 1.0)
    assert take_stop_request(tmp_path / "gone") is None
