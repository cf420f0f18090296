"""Where Redis is and how it is entered, as the settings say."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

from llm_proxy.address import authority
from llm_proxy.errors import ConfigError

if TYPE_CHECKING:
    from llm_proxy.secrets import Secret
    from llm_proxy.settings import Settings

_DEFAULT_PORT: Final = 6379
MOST_DATABASES: Final = 1_000_000  # a bound on what is no number of a database


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisAddress:
    host: str
    port: int = _DEFAULT_PORT
    database: int = 0
    username: str | None = None
    password: Secret | None = None
    uses_tls: bool = False
    ca_file: Path | None = None  # None: the system's roots

    def __str__(self) -> str:
        return authority(self.host, self.port)


def parse_redis_url(text: str) -> Secret:
    """The URL as it is, for a setting that may hold a password."""
    from llm_proxy.secrets import Secret

    url = Secret(text.strip())
    _split(url)
    return url


def redis_address(settings: Settings) -> RedisAddress | None:
    """None: there is no Redis. Raises ConfigError when the settings contradict each other."""
    url, address = settings.redis_url, settings.redis_addr
    if url is not None and address is not None:
        raise ConfigError("REDIS_URL and REDIS_ADDR are both set; remove one of them")
    if url is None and address is None:
        _refuse_without_redis(settings)
        return None
    if address is not None:
        if settings.redis_ca_file is not None:
            raise ConfigError(
                "REDIS_CA_FILE is for TLS, which REDIS_ADDR doesn't use; "
                "write it as REDIS_URL=rediss://HOST:PORT"
            )
        return RedisAddress(
            host=address.host,
            port=address.port,
            database=settings.redis_db or 0,
            password=settings.redis_password,
        )
    assert url is not None
    return _with_others(_split(url), settings)


def _refuse_without_redis(settings: Settings) -> None:
    for name, value in (
        ("REDIS_DB", settings.redis_db),
        ("REDIS_PASSWORD", settings.redis_password),
        ("REDIS_CA_FILE", settings.redis_ca_file),
    ):
        if value is not None:
            raise ConfigError(f"{name} says nothing without REDIS_URL or REDIS_ADDR; set one")


def _with_others(found: RedisAddress, settings: Settings) -> RedisAddress:
    from dataclasses import replace

    if settings.redis_db is not None:
        raise ConfigError("REDIS_DB goes with REDIS_ADDR; REDIS_URL ends in /NUMBER instead")
    if settings.redis_ca_file is not None and not found.uses_tls:
        raise ConfigError("REDIS_CA_FILE is for TLS; write REDIS_URL with rediss://")
    password = settings.redis_password
    if password is not None and found.password is not None:
        raise ConfigError("REDIS_PASSWORD and REDIS_URL both have a password; remove one of them")
    return replace(found, password=password or found.password, ca_file=settings.redis_ca_file)


def _split(url: Secret) -> RedisAddress:
    """Raises ValueError with the rule, never with what was given."""
    from llm_proxy.secrets import Secret

    rule = "a URL like redis://HOST:6379/0, or rediss:// for TLS"
    text = url.reveal()
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError(f"{rule}, with a valid host and port") from None
    if parts.scheme not in ("redis", "rediss") or not parts.hostname or port == 0:
        raise ValueError(f"{rule}, with a host and no port 0")
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError(f"{rule}, in visible ASCII characters (others percent-encoded)")
    if "?" in text or "#" in text:
        raise ValueError(f"{rule}, without query or fragment")
    return RedisAddress(
        host=parts.hostname,
        port=port or _DEFAULT_PORT,
        database=_database(parts.path, rule),
        username=unquote(parts.username) if parts.username else None,
        password=Secret(unquote(parts.password)) if parts.password else None,
        uses_tls=parts.scheme == "rediss",
    )


def _database(path: str, rule: str) -> int:
    number = path.removeprefix("/")
    if not number:
        return 0
    if not (number.isascii() and number.isdigit()) or int(number[:12]) >= MOST_DATABASES:
        raise ValueError(f"{rule}, ending in the number of a database")
    return int(number)
