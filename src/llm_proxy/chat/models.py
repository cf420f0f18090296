"""The models that a token can ask."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote

import msgspec

from llm_proxy.chat import failures
from llm_proxy.chat.dialect import dialect_of
from llm_proxy.chat.http_client import Call, HttpClient, Refused
from llm_proxy.chat.target import Target

_MOST_PAGES: Final = 20
_PAGE: Final = 1000


class Model(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    name: str | None  # for people; OpenAI has none
    owner: str | None  # Anthropic has none
    created_at: datetime | None


class _Item(msgspec.Struct):
    id: str
    display_name: str | None = None
    owned_by: str | None = None
    created: int | float | None = None
    created_at: str | None = None


class _Page(msgspec.Struct):
    data: list[_Item]
    has_more: bool = False
    last_id: str | None = None


async def list_models(target: Target) -> list[Model]:
    """By name. Raises LLMProxyError or a kind of it."""
    found: dict[str, Model] = {}
    async with HttpClient(target) as http:
        query = f"?limit={_PAGE}" if target.api == "anthropic" else ""
        for _ in range(_MOST_PAGES):
            page = await _page(http, query)
            found |= {item.id: _model(item) for item in page.data}
            if not page.has_more or not page.last_id:
                break
            query = f"?limit={_PAGE}&after_id={quote(page.last_id, safe='')}"
    return [found[name] for name in sorted(found)]


async def _page(http: HttpClient, query: str) -> _Page:
    target = http.target
    call = Call(
        method="GET",
        urls=target.urls("/models" + query),
        headers=dialect_of(target.api).headers(target.token),
    )
    try:
        async with http.answer_to(call) as answer:
            body = await http.read_all(answer)
            return msgspec.json.decode(body, type=_Page)
    except Refused as refused:
        raise refused.explained from refused
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise failures.not_understood(call.urls[0], str(exc)) from exc


def _model(item: _Item) -> Model:
    return Model(id=item.id, name=item.display_name, owner=item.owned_by, created_at=_created(item))


def _created(item: _Item) -> datetime | None:
    """Of times that no calendar has, nothing is told."""
    try:
        if item.created is not None:
            return datetime.fromtimestamp(item.created, UTC)
        return None if item.created_at is None else datetime.fromisoformat(item.created_at)
    except (ValueError, OverflowError, OSError):
        return None
