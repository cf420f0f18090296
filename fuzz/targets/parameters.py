"""Parameter whitelists: an accepted body has only allowed values, whoever reads it."""

from __future__ import annotations

import json
from fnmatch import fnmatchcase

import msgspec

from fuzz.target import Target, must
from llm_proxy.errors import Refusal
from llm_proxy.server.gateway.parameters import check_parameters

WHITELIST = {"model": ("gpt-4*", "o1"), "n": ("1",)}


def run(data: bytes) -> None:
    content_type, separator, body = data.partition(b"\n")
    if not separator:
        content_type, body = b"application/json", data
    try:
        check_parameters(body, content_type, WHITELIST)
    except Refusal as refusal:
        must(refusal.code == "param_not_allowed", "another refusal")
        return
    for read in (_pairs, _last, _msgspec, _leniently):
        for name, value in read(body):
            patterns = WHITELIST.get(name.casefold())
            if patterns is not None:
                text = value if isinstance(value, str) else json.dumps(value)
                allowed = any(fnmatchcase(text, pattern) for pattern in patterns)
                must(allowed, f"{read.__name__} reads {name}={text[:40]}")


def _pairs(body: bytes) -> list[tuple[str, object]]:
    """As Python's own reader does, duplicates included."""
    try:
        found = json.loads(body, object_pairs_hook=lambda pairs: ("object", pairs))
    except (ValueError, RecursionError):
        return []
    return list(found[1]) if isinstance(found, tuple) else []


def _last(body: bytes) -> list[tuple[str, object]]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return []
    return list(found.items()) if isinstance(found, dict) else []


def _msgspec(body: bytes) -> list[tuple[str, object]]:
    try:
        return list(msgspec.json.decode(body, type=dict[str, object]).items())
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return []


def _leniently(body: bytes) -> list[tuple[str, object]]:
    """A server that drops what isn't UTF-8, and takes control characters."""
    try:
        found = json.loads(body.decode("utf-8", "replace"), strict=False)
    except (ValueError, RecursionError):
        return []
    return list(found.items()) if isinstance(found, dict) else []


TARGET = Target(
    covers=("llm_proxy.server.gateway.parameters",),
    run=run,
    words=(
        *(b'{"model":"gpt-4o"}', b'"model":', b'"MODEL":', b'"o1"', b'"o3"', b'"n":1', b",", b"{}"),
        *(b'"mode\\u006c":', b"[", b"]", b"null", b"application/json\n", b"; charset=utf-16\n"),
        *(
            b"; charset=latin-1\n",
            b"\xef\xbb\xbf",
            b"\x00",
            b"\xff",
            b"\\ud800",
            b"charset=utf-7\n",
        ),
        *("\u017f".encode(), "\u212a".encode(), b"NaN", b"1e999"),
    ),
    max_bytes=400,
    seeds=(
        b'{"model":"gpt-4o","n":1,"messages":[]}',
        b'{"model":"o1","model":"o3"}',
        b'application/json; charset=utf-16\n{"model":"o1"}',
        b"application/json; charset=latin-1\n" + b'{"model":"gpt-4\xff"}',
        '{"model":"o1"}'.encode("utf-16"),
        b"[1]",
        b'{"model":["o1"],"x":{"model":"o3"}}',
    ),
)
