"""Every setting: its name, default, rule and one line about it; read once, then immutable."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from llm_proxy.address import Address, UnixAddress
from llm_proxy.database_url import DatabaseUrl
from llm_proxy.errors import ConfigError, WrongUsage
from llm_proxy.home import Home
from llm_proxy.secrets import Secret, new_encryption_key, new_management_token
from llm_proxy.setting import SETTINGS, Setting

__all__ = ["SETTINGS", "Address", "Resolved", "Setting", "Settings", "UnixAddress"]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    home: Home
    listen_addr: Address | UnixAddress
    tls_cert: Path | None  # None: no TLS
    tls_key: Path | None
    proxy_protocol: bool
    trusted_proxies: tuple[str, ...]  # addresses and networks; "unix" for Unix sockets
    manage_addr: Address | None  # None: on the public address too
    workers: int
    request_timeout: float  # seconds
    max_request_size: int  # bytes
    store_grace: float  # seconds
    max_concurrent_requests: int  # of all workers; 0: as the provider file says
    global_rate_limit: str | None  # as `parse_rate` takes it; None: as the provider file says
    ip_rate_limit: str | None
    client_head_timeout: float  # seconds, these four
    client_body_timeout: float
    keep_alive_timeout: float
    client_write_timeout: float
    debug_headers: bool
    enable_metrics: bool
    metrics_path: str
    management_token: Secret | None
    encryption_key: Secret | None
    require_encryption_key: bool
    config_path: Path | None  # None: the built-in profile
    default_api: str | None
    openai_api_url: str | None
    database_path: Path  # see `database`
    database_url: Path | DatabaseUrl | None
    database_pool_size: int
    redis_url: Secret | None
    redis_addr: Address | None
    redis_db: int | None
    redis_password: Secret | None
    redis_ca_file: Path | None
    redis_timeout: float  # seconds
    redis_fail: str  # open or closed
    token_cleanup_interval: float  # seconds
    pid_file: Path
    log_level: str  # debug, info, warning or error
    log_format: str  # auto, json or console
    log_file: Path | None
    file_event_log: Path | None
    log_max_size_mb: int
    log_max_backups: int
    audit_enabled: bool
    audit_log_file: Path | None  # None: only the database has it
    audit_max_size_mb: int
    audit_max_backups: int
    audit_store_in_db: bool
    audit_retention: float  # seconds
    manage_api_base_url: str

    @property
    def database(self) -> Path | DatabaseUrl:
        return self.database_path if self.database_url is None else self.database_url


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    settings: Settings
    sources: dict[str, str]  # name of the variable: where its value came from


@dataclass(frozen=True, slots=True, kw_only=True)
class _Given:
    """A value as it was written, and where."""

    text: str
    place: str
    folder: Path  # what a relative path is relative to
    is_flag: bool = False

    def parsed(self, setting: Setting) -> object:
        try:
            value = setting.parse(self.text)
        except ValueError as exc:
            may_hold_a_password = setting.is_secret or "@" in self.text
            shown = "" if may_hold_a_password else f", not {self.text!r}"
            kind = WrongUsage if self.is_flag else ConfigError
            raise kind(f"{self.place} must be {exc}{shown}") from exc
        return self.folder / value.expanduser() if isinstance(value, Path) else value


def load_settings(
    flags: Mapping[str, object],
    *,
    environ: Mapping[str, str] | None = None,
    env_file: Path | None = None,
    folder: Path | None = None,
) -> Settings:
    """`flags` by field name, None for one that wasn't given. Raises ConfigError.

    Paths in flags and the environment are relative to `folder`, else to the current one.
    """
    return resolve_settings(flags, environ=environ, env_file=env_file, folder=folder).settings


def load_place(pid_file: Path | None, *, environ: Mapping[str, str] | None = None) -> Settings:
    """The home folder and a PID file, whatever the configuration is worth."""
    environ = os.environ if environ is None else environ
    named = {name: environ[name] for name in ("LLM_PROXY_HOME",) if name in environ}
    flags = {"pid_file": pid_file}
    return resolve_settings(flags, environ=named, reads_home=False).settings


def resolve_settings(
    flags: Mapping[str, object],
    *,
    environ: Mapping[str, str] | None = None,
    env_file: Path | None = None,
    folder: Path | None = None,
    reads_home: bool = True,
) -> Resolved:
    """Flag before environment before env file before default."""
    environ = os.environ if environ is None else environ
    folder = folder or Path.cwd()
    _refuse_unknown_variables(environ)
    from_flags = _given_as_flags(flags, folder)
    from_environ = _given_in_environment(environ, folder)
    from_file = _given_in_file(env_file) if env_file else {}
    layers = (from_flags, from_environ, from_file)
    home, place = _find_home(layers)
    if env_file is None and reads_home and home.has_env_file():
        from_file.update(_given_in_file(home.env_file))
        if (misplaced := from_file.get("home")) is not None:
            raise ConfigError(
                f"{misplaced.place} can't be set in the home folder itself; "
                "set it in the environment"
            )
    _choose_database(layers)
    values: dict[str, object] = {"home": home}
    sources = {"LLM_PROXY_HOME": place.removesuffix(": LLM_PROXY_HOME")}
    for setting in SETTINGS:
        if setting.field != "home":
            values[setting.field], sources[setting.env] = _resolve(setting, layers, home)
    return Resolved(settings=Settings(**values), sources=sources)  # type: ignore[arg-type]


def load_or_create_secrets(settings: Settings) -> tuple[Settings, list[Path]]:
    """Makes the secrets that nobody has set, in the home folder; the files it made are second."""
    made = {"management_token": new_management_token, "encryption_key": new_encryption_key}
    refuse_missing_key(settings)
    created = []
    for name, make in made.items():
        if getattr(settings, name) is None:
            fresh = make()
            stored = settings.home.create_secret(name, fresh)
            settings = msgspec.structs.replace(settings, **{name: stored})
            if stored == fresh:
                created.append(settings.home.secret_file(name))
    return settings, created


def refuse_missing_key(settings: Settings) -> None:
    """Raises ConfigError where an encryption key would have to be generated and may not be."""
    if settings.require_encryption_key and settings.encryption_key is None:
        raise ConfigError(
            "ENCRYPTION_KEY isn't set, nor is one in the home folder "
            f"{settings.home.path}, and REQUIRE_ENCRYPTION_KEY forbids to generate one; set it"
        )


def _refuse_unknown_variables(environ: Iterable[str]) -> None:
    known = {setting.env for setting in SETTINGS}
    for name in sorted(environ):
        if name.startswith("LLM_PROXY_") and name not in known:
            raise ConfigError(f"environment variable {name} is no setting{_hint(name)}")


def _hint(name: str) -> str:
    from difflib import get_close_matches

    close = get_close_matches(name, [setting.env for setting in SETTINGS], n=1)
    return f"; did you mean {close[0]}?" if close else "; remove it, or see .env.example"


def _given_as_flags(flags: Mapping[str, object], folder: Path) -> dict[str, _Given]:
    by_field = {setting.field: setting for setting in SETTINGS}
    given = {
        field: _Given(
            text=_written(value),
            place=by_field[field].flag or field,
            folder=folder,
            is_flag=True,
        )
        for field, value in flags.items()
        if value is not None
    }
    if (database := given.get("database_path")) is not None and "://" in database.text:
        given["database_url"] = given.pop("database_path")  # --db takes both
    return given


def _written(value: object) -> str:
    return value.reveal() if isinstance(value, Secret) else str(value)


def _given_in_environment(environ: Mapping[str, str], folder: Path) -> dict[str, _Given]:
    return {
        setting.field: _Given(
            text=environ[setting.env],
            place=f"environment variable {setting.env}",
            folder=folder,
        )
        for setting in SETTINGS
        if environ.get(setting.env)
    }


def _given_in_file(path: Path) -> dict[str, _Given]:
    from llm_proxy.env_file import read_env_file

    path = path.absolute()
    by_env = {setting.env: setting for setting in SETTINGS}
    given = {}
    for entry in read_env_file(path):
        place = f"{path}:{entry.line}: {entry.name}"
        if (setting := by_env.get(entry.name)) is None:
            raise ConfigError(f"{place} is no setting{_hint(entry.name)}")
        if entry.value:
            given[setting.field] = _Given(text=entry.value, place=place, folder=path.parent)
    return given


_Layers = tuple[dict[str, _Given], ...]


def _choose_database(layers: _Layers) -> None:
    """A flag is the only one then; without one there must not be two."""
    names = ("database_path", "database_url")
    flags, *others = layers
    if any(name in flags for name in names):
        for layer in others:
            for name in names:
                layer.pop(name, None)
    places = [
        next(layer[name].place for layer in others if name in layer)
        for name in names
        if any(name in layer for layer in others)
    ]
    if len(places) == 2:
        raise ConfigError(
            f"there are two databases, by {places[0]} and by {places[1]}; remove one of them"
        )


def _find_home(layers: _Layers) -> tuple[Home, str]:
    for layer in layers:
        if (given := layer.get("home")) is not None:
            path = given.folder / Path(given.text).expanduser()
            return Home(path), given.place
    return Home.default({}), "default"


def _resolve(setting: Setting, layers: _Layers, home: Home) -> tuple[object, str]:
    for layer in layers:
        if (given := layer.get(setting.field)) is not None:
            return given.parsed(setting), given.place.removesuffix(f": {setting.env}")
    if setting.is_kept_in_home and (secret := home.read_secret(setting.field)) is not None:
        path = str(home.secret_file(setting.field))
        stored = _Given(text=secret.reveal(), place=path, folder=home.path)
        return stored.parsed(setting), path
    if setting.home_file:
        return home.path / setting.home_file, "default"
    return (None if setting.default is None else setting.parse(setting.default)), "default"
