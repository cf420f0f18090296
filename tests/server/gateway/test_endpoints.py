from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.server.gateway.endpoints import Endpoints

PATH = st.text("ab/", max_size=6).map(lambda text: "/" + text)


@pytest.mark.parametrize(
    ("patterns", "path", "allowed"),
    [
        (["/v1/models"], b"/v1/models", True),
        (["/v1/models"], b"/v1/models/", False),
        (["/v1/models"], b"/v1/model", False),
        (["/v1/files/*"], b"/v1/files", True),
        (["/v1/files/*"], b"/v1/files/a/b", True),
        (["/v1/files/*"], b"/v1/filesystem", False),
        (["/v1/files/*"], b"/v1", False),
        (["/v1/a", "/v1/b/*"], b"/v1/b/c", True),
        (["/*"], b"/", True),
        (["/*"], b"/any/thing", True),
        (["/v1/models"], b"/v1/model%73", False),  # nothing is decoded
        ([], b"/", False),
    ],
)
def test_paths_are_exact_or_of_a_subtree(patterns: list[str], path: bytes, allowed: bool) -> None:
    assert Endpoints(patterns).allow(path) is allowed


@given(st.lists(PATH, max_size=3), PATH)
def test_an_exact_path_allows_itself_alone(patterns: list[str], path: str) -> None:
    assert Endpoints(patterns).allow(path.encode()) == (path in patterns)


@given(PATH, PATH)
def test_a_subtree_allows_its_root_and_what_is_below(root: str, path: str) -> None:
    expected = path == root or path.startswith(root + "/")
    assert Endpoints([root + "/*"]).allow(path.encode()) == expected
