"""Where a database is: the URL of a server, or the path of a SQLite file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from llm_proxy.secrets import Secret

Engine = Literal["postgresql", "mysql"]

_SCHEMES: Final[dict[str, Engine]] = {
    "postgresql": "postgresql",
    "postgres": "postgresql",
    "mysql": "mysql",
    "mariadb": "mysql",
}
_PORTS: Final[dict[Engine, int]] = {"postgresql": 5432, "mysql": 3306}
# The same names for both engines: those of PostgreSQL, which are known best.
_SSL_MODES = ("disable", "prefer", "require", "verify-ca", "verify-full")
_PARAMETERS = ("host", "sslmode", "sslrootcert", "sslcert", "sslkey", "connect_timeout")
_RULE = "a URL like postgresql://USER:PASSWORD@HOST:PORT/DATABASE, mysql://… or sqlite:///PATH"


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseUrl:
    """Formats without its password; `reveal()` is the whole."""

    engine: Engine
    host: str  # or the folder of a Unix socket (PostgreSQL), or the socket itself (MySQL)
    port: int
    user: str
    password: Secret | None
    name: str
    sslmode: str = "prefer"
    sslrootcert: str | None = None
    sslcert: str | None = None
    sslkey: str | None = None
    connect_timeout_s: int | None = None

    @property
    def is_on_unix_socket(self) -> bool:
        return self.host.startswith("/")

    def __str__(self) -> str:
        return self._written("***" if self.password else None)

    def reveal(self) -> str:
        return self._written(quote(self.password.reveal(), safe="") if self.password else None)

    def _written(self, password: str | None) -> str:
        user = quote(self.user, safe="") + ("" if password is None else f":{password}")
        host = "" if self.is_on_unix_socket else _bracketed(self.host)
        port = "" if self.port == _PORTS[self.engine] else f":{self.port}"
        where = f"{user}@{host}{port}/{quote(self.name, safe='')}"
        parameters = {
            "host": self.host if self.is_on_unix_socket else None,
            "sslmode": None if self.sslmode == "prefer" else self.sslmode,
            "sslrootcert": self.sslrootcert,
            "sslcert": self.sslcert,
            "sslkey": self.sslkey,
            "connect_timeout": self.connect_timeout_s,
        }
        query = "&".join(
            f"{key}={quote(str(value), safe='/')}"
            for key, value in parameters.items()
            if value is not None
        )
        return f"{self.engine}://{where}" + (f"?{query}" if query else "")


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def parse_database(text: str) -> Path | DatabaseUrl:
    """A path, or a URL of any engine. Raises ValueError with the rule, never with the value."""
    return parse_database_url(text) if "://" in text else parse_database_path(text)


def parse_database_path(text: str) -> Path:
    """A path, or one as `sqlite:///PATH`."""
    path = text.strip().removeprefix("sqlite:///")
    if not path or "\0" in path or "://" in path or path.startswith(":memory:"):
        raise ValueError("the path of a file; URLs of servers go into DATABASE_URL")
    return Path(path)


def parse_database_url(text: str) -> Path | DatabaseUrl:
    text = text.strip()
    if text.startswith("sqlite:///"):
        return parse_database_path(text)
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError(
            f"{_RULE}, with a valid host and port, and what is special in a password "
            "percent-encoded"
        ) from None
    engine = _SCHEMES.get(parts.scheme)
    if engine is None or parts.fragment:
        # A `#` in a password would cut it there, without a word.
        raise ValueError(f"{_RULE}, with what is special in a password percent-encoded")
    parameters = _parameters(parts.query)
    host = unquote(parts.hostname or "") or parameters.get("host") or "localhost"
    name = unquote(parts.path.removeprefix("/"))
    if not name or not parts.username or port == 0:
        raise ValueError(f"{_RULE}, with a user and the name of a database")
    if any(not part.isprintable() for part in (host, name, unquote(parts.username))):
        raise ValueError(f"{_RULE}, without control characters")
    return DatabaseUrl(
        engine=engine,
        host=host,
        port=port or _PORTS[engine],
        user=unquote(parts.username),
        password=Secret(unquote(parts.password)) if parts.password else None,
        name=name,
        sslmode=_ssl_mode(parameters),
        sslrootcert=parameters.get("sslrootcert"),
        sslcert=parameters.get("sslcert"),
        sslkey=parameters.get("sslkey"),
        connect_timeout_s=_connect_timeout(parameters),
    )


def write_database(database: Path | DatabaseUrl) -> str:
    """The whole, with a password: for the processes of one server."""
    return database.reveal() if isinstance(database, DatabaseUrl) else str(database)


def _parameters(query: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(query, strict_parsing=True, keep_blank_values=True) if query else []
    except ValueError:
        raise ValueError(f"{_RULE}, with parameters like ?sslmode=verify-full") from None
    for name, _ in pairs:
        if name not in _PARAMETERS:
            known = ", ".join(_PARAMETERS)
            raise ValueError(f"{_RULE}; of parameters only {known} are known")
    return dict(pairs)


def _ssl_mode(parameters: dict[str, str]) -> str:
    mode = parameters.get("sslmode", "prefer")
    if mode not in _SSL_MODES:
        raise ValueError(f"{_RULE}, whose sslmode is one of {', '.join(_SSL_MODES)}")
    return mode


def _connect_timeout(parameters: dict[str, str]) -> int | None:
    if (text := parameters.get("connect_timeout")) is None:
        return None
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text[:6]) <= 600:
        raise ValueError(f"{_RULE}, whose connect_timeout is from 1 to 600 seconds")
    return int(text)
