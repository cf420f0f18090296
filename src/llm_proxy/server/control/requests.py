"""What a management request says: its JSON body and its query, checked."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from typing import Any, TypeVar
from urllib.parse import urlencode

import msgspec
from starlette.requests import Request

from llm_proxy.errors import Refusal
from llm_proxy.server.control.answers import invalid, shortened
from llm_proxy.server.control.audit_trail import note_fields
from llm_proxy.store.page import Page

T = TypeVar("T")

BODY_LIMIT = 2**20  # bytes
_DEFAULT_LIMIT = 100
_LARGEST_LIMIT = 1000
_SECRET_FIELDS = {"api_key", "api_keys"}
_RULE = 'must be a JSON object, like {"name": "…"}'
_NO_TIME = "invalid RFC3339 encoded datetime"  # in msgspec's words
_FIELD = re.compile(r"`\$\.([A-Za-z_.]+)")  # scope.models
_QUOTED = re.compile(r"field `([^`]*)`")


async def read_json(request: Request, kind: type[T], *, may_be_empty: bool = False) -> T:
    """The body as a `kind`. Raises Refusal naming the field that is wrong."""
    raw = await _read_body(request)
    if not raw and may_be_empty:
        raw = b"{}"
    if not raw:
        raise Refusal("invalid_request", f"the body is empty; it {_RULE}")
    try:
        document = msgspec.json.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise Refusal("invalid_request", f"the body isn't a valid JSON document: {exc}") from exc
    if not isinstance(document, dict):
        raise Refusal("invalid_request", f"the body {_RULE}")
    try:
        wanted = msgspec.convert(document, kind)
    except msgspec.ValidationError as exc:
        raise _explained(str(exc), document) from exc
    note_fields(document)
    return wanted


async def _read_body(request: Request) -> bytes:
    """Stops reading at the limit, whatever Content-Length says."""
    announced = request.headers.get("Content-Length", "0")
    if announced.isdecimal() and int(announced[:20]) > BODY_LIMIT:
        raise _too_large()
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_LIMIT:
            raise _too_large()
    return bytes(body)


def _too_large() -> Refusal:
    # The rest of the body stays unread, so the connection can't be used again.
    return Refusal(
        "body_too_large",
        f"the body is larger than {BODY_LIMIT} bytes; send less",
        headers={"Connection": "close"},
    )


def _explained(problem: str, document: dict[str, Any]) -> Refusal:
    """msgspec's message, with the field first and the value where that is no secret."""
    found = _FIELD.search(problem)
    field = found[1] if found else ""
    if "unknown field" in problem and (match := _QUOTED.search(problem)):
        name = f"{field}.{match[1]}" if field else match[1]
        return invalid(shortened(name), "is not a known field here; remove it")
    if "missing required field" in problem and (match := _QUOTED.search(problem)):
        return invalid(match[1], "is required")
    if not field:
        return Refusal("invalid_request", problem)
    rule = problem.partition(" - at ")[0].replace("`", "")
    rule = rule[0].lower() + rule[1:]
    names = field.split(".")
    if names[0] in _SECRET_FIELDS:
        return invalid(field, f"is wrong: {rule}")
    sent = shortened(_sent(names, document))
    if rule == _NO_TIME:
        return invalid(field, f"must be a time like 2030-01-31T12:00:00Z, not {sent}")
    return invalid(field, f"is wrong: {rule}: {sent}")


def _sent(names: Sequence[str], document: dict[str, Any]) -> str:
    value: Any = document
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return msgspec.json.encode(value).decode()


class Query:
    """The query parameters; one that is not in `known`, or is sent twice, is refused."""

    def __init__(self, request: Request, *, known: Sequence[str]) -> None:
        self._path = request.url.path
        self._values: dict[str, str] = {}
        for name, value in request.query_params.multi_items():
            if name not in known:
                raise invalid(shortened(name), f"is no parameter here; known: {', '.join(known)}")
            if name in self._values:
                raise invalid(name, "was sent more than once")
            if "\0" in value:  # which not every database takes
                raise invalid(name, "must not contain a NUL character")
            self._values[name] = value

    def note_flags(self) -> None:
        """Of a change, all of them flags: its audit record tells which are true."""
        note_fields(name for name in self._values if self.flag(name))

    def text(self, name: str) -> str | None:
        return self._values.get(name)

    def flag(self, name: str) -> bool:
        value = self._values.get(name, "false").lower()
        if value not in ("true", "false", "1", "0"):
            raise invalid(name, f"must be true or false, not {shortened(value)!r}")
        return value in ("true", "1")

    @property
    def limit(self) -> int:
        text = self._values.get("limit", str(_DEFAULT_LIMIT))
        is_number = text.isascii() and text.isdigit() and len(text) < 10
        if not is_number or not 1 <= int(text) <= _LARGEST_LIMIT:
            raise invalid(
                "limit",
                f"must be a whole number from 1 to {_LARGEST_LIMIT}, not {shortened(text)!r}",
            )
        return int(text)

    @property
    def after(self) -> str | None:
        if (cursor := self._values.get("cursor")) is None:
            return None
        rule = "must be taken from the Link of the page before"
        try:
            text = base64.b64decode(cursor.encode("ascii"), altchars=b"-_", validate=True).decode()
        except (binascii.Error, UnicodeError) as exc:
            raise invalid("cursor", rule) from exc
        if not text or "\0" in text:  # which not every database takes
            raise invalid("cursor", rule)
        return text

    def page_headers(self, page: Page[Any]) -> dict[str, str]:
        headers = {"X-Total-Count": str(page.total)}
        if page.after is not None:
            cursor = base64.urlsafe_b64encode(page.after.encode()).decode()
            query = urlencode({**self._values, "limit": self.limit, "cursor": cursor})
            headers["Link"] = f'<{self._path}?{query}>; rel="next"'
        return headers
