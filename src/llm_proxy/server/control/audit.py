"""/manage/audit: reading the audit log, and checking that nobody has changed it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from llm_proxy.audit import AuditRecord
from llm_proxy.server.control.answers import invalid, json_answer, missing, shortened
from llm_proxy.server.control.context import ControlContext
from llm_proxy.server.control.requests import Query
from llm_proxy.store.audit_query import EXACT, AuditFilter, get_record, list_records

_OUTCOMES = ("success", "failure", "denied", "error")
_LONGEST_SEARCH = 200  # characters
_ID_LENGTH = 36


class Audit:
    def __init__(self, context: ControlContext) -> None:
        self._context = context

    async def list(self, request: Request) -> Response:
        known = (*EXACT, "search", "start_time", "end_time", "limit", "cursor")
        query = Query(request, known=known)
        page = await self._context.store.run(
            list_records, _filter(query), limit=query.limit, after=query.after
        )
        shown = [_shown(record) for record in page.items]
        return json_answer(shown, headers=query.page_headers(page))

    async def get(self, request: Request) -> Response:
        record_id = request.path_params["id"]
        is_id = len(record_id) == _ID_LENGTH and record_id.isprintable()
        record = await self._context.store.run(get_record, record_id) if is_id else None
        if record is None:
            raise missing("audit record")
        return json_answer(_shown(record))

    async def verify(self, request: Request) -> Response:
        Query(request, known=())
        verdicts = await self._context.audit.verify()
        is_sound = all(verdict.is_sound for verdict in verdicts)
        return json_answer({"sound": is_sound, "chains": verdicts})


def _filter(query: Query) -> AuditFilter:
    exact = {name: text for name in EXACT if (text := query.text(name)) is not None}
    if (outcome := exact.get("outcome")) is not None and outcome not in _OUTCOMES:
        rule = f"must be one of {', '.join(_OUTCOMES)}"
        raise invalid("outcome", f"{rule}, not {shortened(outcome)!r}")
    search = query.text("search")
    if search is not None and len(search) > _LONGEST_SEARCH:
        raise invalid("search", f"must have at most {_LONGEST_SEARCH} characters")
    return AuditFilter(
        exact=exact,
        search=search,
        since=_time(query, "start_time"),
        until=_time(query, "end_time"),
    )


def _time(query: Query, name: str) -> datetime | None:
    text = query.text(name)
    if text is None:
        return None
    rule = "must be a time with its zone, like 2030-01-31T12:00:00Z"
    try:
        at = msgspec.convert(text, datetime)
    except msgspec.ValidationError:
        at = None
    if at is None or at.tzinfo is None:
        hint = " (write the + as %2B)" if " " in text else ""
        raise invalid(name, f"{rule}, not {shortened(text)!r}{hint}")
    if not 1 < at.year < 9999:  # in UTC, too
        raise invalid(name, "must lie between the years 2 and 9998")
    return at


def _shown(record: AuditRecord) -> dict[str, Any]:
    """All fields, those that are empty as null."""
    return msgspec.structs.asdict(record)
