"""What the commands about encryption have in common: options, keys, and the database opened."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llm_proxy.cli.manage_access import read_secret_line
from llm_proxy.errors import ConfigError
from llm_proxy.settings import Settings, resolve_settings

if TYPE_CHECKING:
    from llm_proxy.secrets import Cipher, Secret
    from llm_proxy.server.key_rotation import KeyPlace
    from llm_proxy.store.database import Store

Database = Annotated[
    str | None,
    typer.Option("--db", metavar="PATH|URL", help="Database instead of that of the settings."),
]
AsJSON = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask for confirmation.")]


def found_key(db: str | None) -> tuple[Settings, Cipher, KeyPlace | None]:
    """The settings, the key, and where the home keeps it if that is the key's place."""
    from llm_proxy.database_url import write_database
    from llm_proxy.secrets import Cipher
    from llm_proxy.server.key_rotation import KeyPlace
    from llm_proxy.server.state import read_state

    resolved = resolve_settings({"database_path": db})
    settings = resolved.settings
    if settings.encryption_key is None:
        raise ConfigError(
            "there is no ENCRYPTION_KEY here; set the one that the database was written with"
        )
    state = read_state(settings.home.state_file)
    served = None if state is None else state.flags.get("database_path")
    of_home = {write_database(resolve_settings({}).settings.database), served}
    place = KeyPlace.of(settings.home, resolved.sources["ENCRYPTION_KEY"])
    is_of_home = write_database(settings.database) in of_home
    return settings, Cipher(settings.encryption_key), place if is_of_home else None


@contextlib.contextmanager
def opened(settings: Settings, cipher: Cipher, *, migrate: bool = False) -> Iterator[Store]:
    from llm_proxy.store.database import Store

    store = Store(settings.database, cipher=cipher)
    try:
        store.open(migrate=migrate)
        yield store
    finally:
        store.close()


def given_key(option: str | None, name: str, variable: str) -> Secret | None:
    """What an option's file, stdin or an environment variable holds."""
    if option == "-":
        return checked_key(read_secret_line(name).reveal(), f"what came from stdin for {name}")
    if option is not None:
        return checked_key(_text_of(Path(option), name), f"what {option} holds")
    text = os.environ.get(variable)
    return checked_key(text, f"environment variable {variable}") if text else None


def _text_of(path: Path, option: str) -> str:
    try:
        return path.read_text("ascii", "replace")
    except OSError as exc:
        raise typer.BadParameter(f"{option} {path} can't be read: {exc.strerror}") from exc


def checked_key(text: str, place: str) -> Secret:
    from llm_proxy.secrets import Secret
    from llm_proxy.setting_values import parse_encryption_key

    try:
        key = parse_encryption_key(text)
    except ValueError as exc:
        raise typer.BadParameter(f"{place} must be {exc}") from exc
    assert isinstance(key, Secret)
    return key
