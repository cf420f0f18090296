"""`param_whitelist`: which values the top-level parameters of a JSON body may have."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from encodings import normalize_encoding
from encodings.aliases import aliases
from fnmatch import fnmatchcase
from typing import Any, Final
from urllib.parse import parse_qsl

from llm_proxy.errors import Refusal
from llm_proxy.server.gateway.request_head import RequestHead

# Codecs that Python has beside the charsets; some take the square of the length.
_NO_CHARSETS: Final = frozenset(
    ("idna", "punycode", "undefined", "unicode-escape", "raw-unicode-escape")
)
# Python remembers every name it is asked for, so it is asked for none that a client invented.
_CHARSETS: Final = frozenset(
    (*aliases, *aliases.values(), "cp720", "cp874", "koi8_t", "koi8_u", "utf_8_sig")
)
# RFC 9110 sections 5.6.6 and 8.3.1.
_TOKEN: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PARAMETER: Final = re.compile(rf'[ \t]*;[ \t]*({_TOKEN})=({_TOKEN}|"(?:[^"\\]|\\.)*")')
_MEDIA_TYPE: Final = re.compile(rf"[^; \t]*(?:{_PARAMETER.pattern})*[ \t]*")
_SHOWN: Final = 100  # characters of a refused value


def check_request(head: RequestHead, body: bytes, whitelist: Mapping[str, Sequence[str]]) -> None:
    """Raises Refusal for a request whose parameters are not allowed, or can't be seen."""
    if head.offers_websocket:
        raise Refusal(
            "param_not_allowed",
            "Parameters are restricted here, so a WebSocket, whose messages can't be checked, "
            "is refused; send requests instead.",
        )
    query = head.target.partition(b"?")[2]
    if query:
        members = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
        _check_members(members, whitelist)
    if not body:
        return
    named = head.named
    if named.get(b"content-encoding", b"identity").lower() != b"identity":
        raise Refusal(
            "param_not_allowed",
            "Parameters are restricted here, so a compressed body can't be checked; "
            "send it without Content-Encoding.",
        )
    check_parameters(body, named.get(b"content-type", b""), whitelist)


def check_parameters(
    body: bytes, content_type: bytes, whitelist: Mapping[str, Sequence[str]]
) -> None:
    """Raises Refusal for a value that is not allowed, and for a body that can't be read."""
    _check_members(_parse(body, content_type), whitelist)


def _check_members(
    members: Iterable[tuple[str, Any]], whitelist: Mapping[str, Sequence[str]]
) -> None:
    # Some upstreams, those written in Go among them, read names without regard to case.
    folded = {name.casefold(): patterns for name, patterns in whitelist.items()}
    for name, value in members:
        patterns = folded.get(name.casefold())
        if patterns is None:
            continue
        if isinstance(value, dict | list) or value is None:
            raise _refusal(name, f"must be one plain value, not {_kind(value)}", patterns)
        text = value if isinstance(value, str) else json.dumps(value)
        if not any(fnmatchcase(text, pattern) for pattern in patterns):
            raise _refusal(name, f"has the value {text[:_SHOWN]!r}", patterns)


def _parse(body: bytes, content_type: bytes) -> list[tuple[str, Any]]:
    """The members of the object, repeated ones too: an upstream may obey another than we check."""
    try:
        charset = _charset(content_type)
        members = _read_as_declared(body, charset)
        others = _read_regardless(body) if charset else ()
    except (ValueError, LookupError, RecursionError) as exc:
        reason = "nested too deeply" if isinstance(exc, RecursionError) else "not valid JSON"
        raise Refusal(
            "param_not_allowed",
            f"Parameters are restricted here, and this body can't be checked: it is {reason}.",
        ) from None
    if not isinstance(members, _Members):
        raise Refusal(
            "param_not_allowed",
            "Parameters are restricted here, and this body is not a JSON object.",
        )
    return [*members, *others]


class _Members(list[tuple[str, Any]]):
    """A JSON object as it was written."""


def _read_as_declared(body: bytes, charset: str | None) -> object:
    # RFC 8259 says UTF-8; UTF-16 and UTF-32 show in the first bytes.
    encoding = charset or json.detect_encoding(body)
    return json.loads(body.decode(encoding), object_pairs_hook=_Members)


def _read_regardless(body: bytes) -> Sequence[tuple[str, Any]]:
    """As an upstream does that ignores the charset; it may see another object in the same bytes."""
    text = body.decode(json.detect_encoding(body), "replace")
    try:
        members = json.loads(text, object_pairs_hook=_Members, strict=False)
    except json.JSONDecodeError:
        return ()  # such an upstream can't read it at all
    return members if isinstance(members, _Members) else ()


def _charset(content_type: bytes) -> str | None:
    """The codec of the declared charset, unless that is what RFC 8259 says anyway."""
    text = content_type.decode("latin-1")
    if "charset" not in text.lower():
        return None
    if not _MEDIA_TYPE.fullmatch(text):
        raise LookupError(text)
    charsets = [value for name, value in _PARAMETER.findall(text) if name.lower() == "charset"]
    if len(charsets) != 1:  # readers differ in which of several they take, or in `charset*`
        raise LookupError(text)
    charset = charsets[0].strip('"')
    normal = normalize_encoding(charset).lower()
    name = codecs.lookup(normal).name if normal in _CHARSETS else ""
    if not name or name in _NO_CHARSETS:
        raise LookupError(charset)
    return None if name == "utf-8" else name


def _kind(value: object) -> str:
    if value is None:
        return "null"
    return "an object" if isinstance(value, _Members) else "a list"


def _refusal(name: str, problem: str, patterns: Sequence[str]) -> Refusal:
    allowed = ", ".join(patterns)
    return Refusal(
        "param_not_allowed",
        f"The parameter {name!r} {problem}; allowed here: {allowed}.",
        details={"parameter": name, "allowed": list(patterns)},
    )
