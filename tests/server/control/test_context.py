from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from llm_proxy.errors import Conflict
from llm_proxy.server.channel import Change
from llm_proxy.server.control.context import ControlContext
from llm_proxy.store.changes import append_change, changes_after
from llm_proxy.store.database import Store

pytestmark = pytest.mark.anyio

CHANGE = Change(kind="token", id="t")


def note(store: Store, context: ControlContext) -> str:
    with store.writing() as database:
        append_change(database, "token", "t", context.now())
    return "noted"


async def test_workers_are_told_after_the_commit_and_before_the_answer(
    context: ControlContext,
) -> None:
    told = []

    async def publish(changes: list[Change]) -> None:
        _, stored = await context.store.run(changes_after, 0)
        told.append((changes, len(stored)))

    assert await replace(context, publish=publish).commit(CHANGE, note, context) == "noted"
    assert told == [([CHANGE], 1)]


async def test_what_was_not_committed_is_not_told(
    context: ControlContext, surroundings: Any
) -> None:
    def refuse(store: Store) -> None:
        raise Conflict("no")

    with pytest.raises(Conflict):
        await context.commit(CHANGE, refuse)
    assert surroundings.published == []


async def test_workers_are_told_even_when_the_client_has_gone(context: ControlContext) -> None:
    committed, may_tell, told = asyncio.Event(), asyncio.Event(), []

    async def publish(changes: list[Change]) -> None:
        committed.set()
        await may_tell.wait()
        told.extend(changes)

    request = asyncio.create_task(replace(context, publish=publish).commit(CHANGE, note, context))
    await committed.wait()
    request.cancel()
    may_tell.set()
    with pytest.raises(asyncio.CancelledError):
        await request
    assert told == [CHANGE]


async def test_times_are_utc_unless_told_otherwise(context: ControlContext) -> None:
    plain = ControlContext(
        store=context.store,
        management_token=context.management_token,
        apis=context.apis,
        default_api=context.default_api,
        publish=context.publish,
        health=context.health,
    )
    offset = plain.now().utcoffset()
    assert offset is not None
    assert offset.total_seconds() == 0
