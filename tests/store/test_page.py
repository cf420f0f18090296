from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from llm_proxy.store.database import Store
from llm_proxy.store.page import Page
from llm_proxy.store.projects import Project, list_projects
from llm_proxy.store.tokens import Token, list_tokens


def walk(page_after: Callable[[str | None], Page[Any]]) -> list[Any]:
    items: list[Any] = []
    page = page_after(None)
    items += page.items
    while page.after is not None:
        page = page_after(page.after)
        items += page.items
    return items


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 6, 100])
def test_walking_the_pages_of_projects_sees_each_once(
    store: Store, add_project: Callable[..., Project], limit: int
) -> None:
    names = ["Äpfel", "b", "a", "B", "e"]
    for name in names:
        add_project(name=name)
    pages = walk(lambda after: list_projects(store, limit=limit, after=after))
    assert [project.name for project in pages] == sorted(names)
    assert list_projects(store, limit=limit).total == 5


@pytest.mark.parametrize("limit", [1, 2, 4, 100])
def test_walking_the_pages_of_tokens_sees_each_once_even_of_one_moment(
    store: Store, add_token: Callable[..., tuple[Token, bytes]], now: Any, limit: int
) -> None:
    made = [add_token(created_at=now)[0] for _ in range(3)]
    made.append(add_token(created_at=now + timedelta(microseconds=1))[0])
    pages = walk(lambda after: list_tokens(store, limit=limit, after=after))
    assert sorted(token.id for token in pages) == sorted(token.id for token in made)
    assert pages[0] == made[-1]


def test_what_is_added_in_front_does_not_shift_the_next_page(
    store: Store, add_token: Callable[..., tuple[Token, bytes]], now: Any
) -> None:
    old = [add_token(created_at=now + timedelta(seconds=n))[0] for n in range(4)]
    first = list_tokens(store, limit=2)
    add_token(created_at=now + timedelta(hours=1))
    second = list_tokens(store, limit=2, after=first.after)
    assert [t.id for t in (*first.items, *second.items)] == [t.id for t in reversed(old)]


def test_an_empty_list_is_one_empty_page(store: Store) -> None:
    assert list_projects(store, limit=1) == Page(items=[], total=0, after=None)
