from __future__ import annotations

import pytest

from llm_proxy.benchmark.mock_answer import Refused
from llm_proxy.benchmark.mock_chat import complete_chat
from llm_proxy.benchmark.mock_files import FileStore
from llm_proxy.benchmark.mock_hang_ups import HangUps
from llm_proxy.benchmark.mock_models import get_model, list_models
from llm_proxy.benchmark.mock_request import Request
from llm_proxy.benchmark.mock_routes import Route, Routes

files = FileStore()
routes = Routes(files, HangUps())


def _find(method: str, target: bytes) -> Route:
    return routes.find(Request(method, target, []))


def test_paths_lead_to_their_handlers_whatever_the_query() -> None:
    assert _find("POST", b"/v1/chat/completions?beta=true").handler is complete_chat
    assert _find("GET", b"/v1/models").handler is list_models
    assert _find("GET", b"/v1/models/gpt-4o").handler is get_model
    assert _find("DELETE", b"/v1/files/file-1").handler == files.delete
    assert _find("GET", b"/v1/files/file-1/content").handler == files.content


def test_head_is_get() -> None:
    assert _find("HEAD", b"/v1/models").handler is list_models


@pytest.mark.parametrize(
    "target",
    [
        b"/",
        b"/v1",
        b"/v1/models/",
        b"/v1/models/a/content",
        b"/v1/files/a/b",
        b"/v1/files/a/content/c",
        b"/v1/chat/completions/x",
        b"*",
        b"example.com:443",
    ],
)
def test_other_paths_are_404(target: bytes) -> None:
    with pytest.raises(Refused, match="Invalid URL") as raised:
        _find("GET", target)
    assert raised.value.status == 404


def test_other_methods_are_405_and_say_which_are_allowed() -> None:
    with pytest.raises(Refused, match="takes GET, POST, not PUT") as raised:
        _find("PUT", b"/v1/files")
    assert raised.value.status == 405
    assert raised.value.headers == b"allow: GET, POST\r\n"
    with pytest.raises(Refused, match="takes POST, not HEAD"):
        _find("HEAD", b"/v1/chat/completions")
