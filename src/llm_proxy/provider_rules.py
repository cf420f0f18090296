"""What each single value of a provider file must look like."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from llm_proxy.setting_values import parse_url
from llm_proxy.yaml_file import Value

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
_RESERVED_NAMES = {"manage", "admin", "health", "ready", "live", "metrics"}
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}")  # RFC 9110, 5.6.2: token
_METHOD = re.compile(r"[A-Z]{1,20}")
_ENDPOINT = re.compile(r"/[!-)+->@-~]*")  # visible ASCII without * and ?
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^\s/?#@*A-Z]+")
_NO_CREDENTIAL = {
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
}


def check_api_name(value: Value, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise value.key_problem(
            f"the api name {name!r} must be lower-case letters, digits, - and _, 40 at most"
        )
    if name in _RESERVED_NAMES:
        raise value.key_problem(
            f"the api name {name!r} is taken by llm-proxy's own paths; choose another"
        )


def base_url(value: Value) -> str:
    try:
        return parse_url(value.text())
    except ValueError as exc:
        if "@" in value.text():
            raise value.problem(f"{value.where} must be {exc}") from exc  # may hold a password
        raise value.error(str(exc)) from exc


def endpoint(value: Value) -> str:
    return _parsed(value, value.text(), parse_endpoint)


def parse_endpoint(path: str) -> str:
    """Raises ValueError with the rule, as all that begin with `parse` do."""
    exact = path.removesuffix("/*") if path != "/*" else "/"
    if not path.startswith("/") or (exact and not _ENDPOINT.fullmatch(exact)) or "#" in exact:
        raise ValueError("a path like /v1/models, or /v1/files/* for everything under it")
    if "//" in path or any(segment in (".", "..") for segment in path.split("/")):
        raise ValueError("a path without // and without . or .. segments")
    return path


def method(value: Value) -> str:
    return _parsed(value, value.text(), parse_method)


def parse_method(name: str) -> str:
    if not _METHOD.fullmatch(name):
        raise ValueError("a method in capital letters, like GET or POST")
    if name in ("CONNECT", "TRACE"):
        raise ValueError("a method that can be forwarded (CONNECT and TRACE can't)")
    return name


def credential_header(value: Value) -> str:
    name = value.text()
    if not _HEADER.fullmatch(name):
        raise value.error("the name of a header, like Authorization or x-api-key")
    if name.lower() in _NO_CREDENTIAL:
        raise value.error("a header that can carry a key; this one frames or routes the message")
    return name


def scheme(value: Value) -> str:
    text = value.text()
    if text and not _HEADER.fullmatch(text):
        raise value.error('a word like Bearer, or "" for the bare key')
    return text


def glob(value: Value) -> str:
    return _parsed(value, value.written(), parse_glob)


def parse_glob(pattern: str) -> str:
    if not pattern or len(pattern) > 200:
        raise ValueError("a pattern of 1 to 200 characters, like gpt-4*")
    if "[" in pattern and not re.search(r"\[[^\]]+\]", pattern):
        raise ValueError("a pattern whose [ is closed by a ]")
    return pattern


def _parsed(value: Value, text: str, parse: Callable[[str], str]) -> str:
    try:
        return parse(text)
    except ValueError as exc:
        raise value.error(str(exc)) from exc


def origin(value: Value) -> str:
    text = value.text()
    if text != "null" and not _ORIGIN.fullmatch(text):
        raise value.error(
            "an origin as browsers send it, like https://app.example.com, in lower case and "
            "without a path (an empty list allows every origin)"
        )
    return text


def ca_file(value: Value, folder: Path) -> str:
    """The absolute path of a readable file of PEM certificates."""
    import ssl

    path = folder / Path(value.text()).expanduser()
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)
    except ssl.SSLError as exc:
        raise value.error("a file of PEM certificates") from exc
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else None
        raise value.problem(f"{value.where} {path} can't be read: {reason or exc}") from exc
    return str(path)
