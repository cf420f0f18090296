"""What the text of a setting must look like, and how its value is written."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from llm_proxy.address import Address, parse_address, parse_unix_address
from llm_proxy.quantities import parse_duration, parse_size


def parse_positive_duration(text: str) -> float:
    rule = "a duration above zero, like 30s, 5m or 1h30m"
    try:
        seconds = parse_duration(text)
    except ValueError:
        raise ValueError(rule) from None
    if seconds <= 0:
        raise ValueError(rule)
    return seconds


def parse_positive_size(text: str) -> int:
    rule = "a size above zero, like 512KB, 10MB or 1GB"
    try:
        size = parse_size(text)
    except ValueError:
        raise ValueError(rule) from None
    if size <= 0:
        raise ValueError(rule)
    return size


def parse_whole(lowest: int, highest: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        text = text.strip()
        if not (text.isascii() and text.isdigit()) or not lowest <= int(text[:12]) <= highest:
            raise ValueError(f"a whole number from {lowest} to {highest}")
        return int(text)

    return parse


def parse_rate_limit(text: str) -> str:
    from llm_proxy.limits import format_rate, parse_rate

    word = text.strip()
    try:
        return format_rate(parse_rate(f"{word}/min" if word.isdigit() else word))
    except ValueError as exc:
        raise ValueError(f"{exc} (a bare number is of a minute)") from None


def parse_bool(text: str) -> bool:
    word = text.strip().lower()
    if word in ("true", "1", "yes", "on"):
        return True
    if word in ("false", "0", "no", "off"):
        return False
    raise ValueError("true or false, on or off")


def write_bool(value: bool) -> str:
    return "true" if value else "false"


def write_switch(value: bool) -> str:
    return "on" if value else "off"


def parse_choice(*choices: str, **aliases: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        word = text.strip().lower()
        word = aliases.get(word, word)
        if word not in choices:
            raise ValueError(f"one of {', '.join(choices)}")
        return word

    return parse


def parse_path(text: str) -> Path:
    if not text.strip() or "\0" in text:
        raise ValueError("the path of a file")
    return Path(text)


def parse_audit_file(text: str) -> Path | None:
    return None if text.strip().lower() == "off" else parse_path(text)


def parse_url(text: str) -> str:
    """A URL without anything that could carry a secret or change where requests go."""
    text = text.strip()
    rule = "a URL like https://api.example.com"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError(f"{rule} with a valid host and port") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ValueError(f"{rule}, with http or https, a host and no port 0")
    if not text.isascii() or not text.isprintable() or " " in text or "\\" in text:
        raise ValueError(f"{rule}, in visible ASCII characters without a backslash")
    if "@" in parts.netloc or "?" in text or "#" in text:
        raise ValueError(f"{rule}, without user name, password, query or fragment")
    return text.rstrip("/")


def parse_base_url(text: str) -> str:
    """`parse_url`, or `unix:/PATH` of a server on this machine."""
    return str(parse_unix_address(text)) if text.startswith("unix:") else parse_url(text)


def parse_redis_address(text: str) -> Address:
    """`HOST:PORT`, the host being one to reach."""
    found = parse_address(text)
    if found.port == 0 or text.strip().startswith(":"):
        raise ValueError("HOST:PORT of a Redis server, like localhost:6379")
    return found


def parse_redis_timeout(text: str) -> float:
    rule = "a duration from 10ms to 1s, like 250ms"
    try:
        seconds = parse_duration(text)
    except ValueError:
        raise ValueError(rule) from None
    if not 0.01 <= seconds <= 1:
        raise ValueError(rule)
    return seconds


def parse_password(text: str) -> object:
    from llm_proxy.secrets import Secret

    return Secret(text)


def parse_metrics_path(text: str) -> str:
    rule = "a path like /metrics or /internal/metrics, of letters, digits, . _ and -"
    path = text.strip()
    first, *others = path.removeprefix("/").split("/")
    for segment in (first, *others):
        plain = segment.replace("-", "").replace("_", "").replace(".", "")
        if not (plain.isascii() and plain.isalnum()):
            raise ValueError(rule)
    if not path.startswith("/") or len(path) > 200:
        raise ValueError(rule)
    if first in ("manage", "admin", "health", "ready", "live"):
        raise ValueError(f"{rule}, that isn't under one of llm-proxy's own (/{first})")
    return path


def parse_name(text: str) -> str:
    return text.strip()


def parse_management_token(text: str) -> object:
    from llm_proxy.secrets import Secret

    if not text.isascii() or not text.isprintable() or " " in text or not text:
        raise ValueError("visible ASCII characters without blanks (it travels in a header)")
    return Secret(text)


def parse_encryption_key(text: str) -> object:
    from llm_proxy.secrets import Secret

    try:
        raw = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != 32:
        raise ValueError("32 bytes in base64 (make one with: openssl rand -base64 32)")
    return Secret(text.strip())
