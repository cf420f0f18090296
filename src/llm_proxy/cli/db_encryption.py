"""`llm-proxy db rotate-key` and `db encrypt`: the key that upstream keys are stored under."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llm_proxy.cli.manage_access import confirm, print_json, read_secret_line, tell
from llm_proxy.errors import ConfigError, StoreError
from llm_proxy.settings import Settings, resolve_settings

if TYPE_CHECKING:
    from llm_proxy.secrets import Cipher, Secret
    from llm_proxy.server.key_rotation import KeyPlace, Outcome
    from llm_proxy.store.database import Store
    from llm_proxy.store.encryption import Encrypted
    from llm_proxy.store.legacy import LegacyData
    from llm_proxy.store.legacy_import import Imported

Database = Annotated[
    str | None,
    typer.Option("--db", metavar="PATH|URL", help="Database instead of that of the settings."),
]
AsJSON = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask for confirmation.")]


def rotate_key(
    *,
    new_key: Annotated[
        str | None,
        typer.Option(
            "--new-key",
            metavar="FILE|-",
            help="File with the new key, - for stdin; else NEW_ENCRYPTION_KEY, else it is asked.",
        ),
    ] = None,
    generate: Annotated[
        bool,
        typer.Option("--generate", help="Make the new key, where the home keeps the old one."),
    ] = False,
    finish: Annotated[
        bool,
        typer.Option("--finish", help="End it: from then on the old key opens nothing."),
    ] = False,
    yes: Yes = False,
    db: Database = None,
    as_json: AsJSON = False,
) -> None:
    """Put the stored upstream keys under another encryption key, while servers run.

    ENCRYPTION_KEY is the old key; one that the home keeps is replaced there. A key from elsewhere
    goes on working beside the new one, until every server has that and you --finish.

    Example: llm-proxy db rotate-key --generate
    """
    from datetime import UTC, datetime

    from llm_proxy.server.key_rotation import rotate

    if sum((finish, generate, new_key is not None)) > 1:
        raise typer.BadParameter("only one of --new-key, --generate and --finish can be given")
    settings, cipher, place = _found(db)
    if finish:
        _finish(settings, cipher, yes=yes, as_json=as_json)
        return
    if generate and place is None:
        raise typer.BadParameter(
            "--generate stores the new key where the old one is, but that isn't the home of this "
            "database; make one with `openssl rand -base64 32` and give it as NEW_ENCRYPTION_KEY"
        )
    wanted = None if generate else _new_key(new_key)
    confirm(f"Rotate the encryption key of {settings.database}?", yes=yes or new_key == "-")
    with _opened(settings, cipher) as store:
        outcome = rotate(
            store,
            settings,
            wanted,
            place=place,
            is_shared=not isinstance(settings.database, Path),
            at=datetime.now(UTC),
        )
    _report_rotation(settings, outcome, as_json=as_json)


def encrypt(
    *,
    source: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="OLD.db",
            help="SQLite database of the older program to take projects and tokens from.",
        ),
    ] = None,
    old_key: Annotated[
        str | None,
        typer.Option(
            "--old-key",
            metavar="FILE|-",
            help="File with the older program's ENCRYPTION_KEY, - for stdin; "
            "else OLD_ENCRYPTION_KEY, else ours is tried.",
        ),
    ] = None,
    api: Annotated[
        str | None,
        typer.Option("--api", metavar="NAME", help="Api of its keys; else the default api."),
    ] = None,
    yes: Yes = False,
    db: Database = None,
    as_json: AsJSON = False,
) -> None:
    """Encrypt what isn't yet; with --from, take over the older program's projects and tokens.

    The old file is only read. What was taken over before is skipped, so it can be done again.

    Example: llm-proxy db encrypt --from llm-proxy-go.db --old-key old-key.txt
    """
    if source is None:
        if old_key is not None or api is not None:
            raise typer.BadParameter("--old-key and --api go with --from")
        _encrypt_own(db, as_json=as_json)
    else:
        _take_over(source, db, old_key=old_key, api=api, yes=yes, as_json=as_json)


def _encrypt_own(db: str | None, *, as_json: bool) -> None:
    from llm_proxy.store.encryption import reencrypt

    settings, cipher, _ = _found(db)
    with _opened(settings, cipher) as store:
        counts = reencrypt(store)
    if as_json:
        print_json({"database": str(settings.database), "api_keys": counts._asdict()})
    else:
        _print_counts(counts)


def _print_counts(counts: Encrypted) -> None:
    from llm_proxy.manage.tables import print_table

    print_table(("What", "Encrypted", "Already"), [("upstream keys", *counts)])


def _take_over(
    source: Path, db: str | None, *, old_key: str | None, api: str | None, yes: bool, as_json: bool
) -> None:
    from datetime import UTC, datetime

    from llm_proxy.secrets import Cipher
    from llm_proxy.server.configuration import check_configuration
    from llm_proxy.store.legacy import read_legacy
    from llm_proxy.store.legacy_import import import_legacy

    now = datetime.now(UTC)
    settings = resolve_settings({"database_path": db}).settings
    providers = check_configuration(settings)[0].providers
    api = api or providers.default_api
    if api not in providers.apis:
        raise typer.BadParameter(f"--api must be one of {', '.join(providers.apis)}, not {api!r}")
    others = [key for key in (_old_key(old_key), settings.encryption_key) if key is not None]
    data = read_legacy(source, [Cipher(key) for key in others], now=now)
    if not yes and not sys.stdin.isatty():
        raise typer.BadParameter("confirm with --yes what is written to the database")
    question = f"Take over {_contents(data)} into {settings.database}?"
    confirm(question, yes=yes)
    settings, cipher, made = _with_key(settings)
    try:
        with _opened(settings, cipher, migrate=True) as store:
            imported = import_legacy(store, data, api=api, at=now)
    except StoreError:
        for path in made:  # it must not pass for the key of a database that has another
            path.unlink(missing_ok=True)
        raise
    _report_import(settings, data, imported, as_json=as_json)


def _found(db: str | None) -> tuple[Settings, Cipher, KeyPlace | None]:
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


def _with_key(settings: Settings) -> tuple[Settings, Cipher, list[Path]]:
    """Makes one where a start would; the file it made is last."""
    import msgspec

    from llm_proxy.secrets import Cipher, new_encryption_key
    from llm_proxy.settings import refuse_missing_key

    key, made = settings.encryption_key, []
    if key is None:
        refuse_missing_key(settings)
        settings.home.ensure()
        fresh = new_encryption_key()
        key = settings.home.create_secret("encryption_key", fresh)
        made = [settings.home.secret_file("encryption_key")] if key == fresh else []
    return msgspec.structs.replace(settings, encryption_key=key), Cipher(key), made


@contextlib.contextmanager
def _opened(settings: Settings, cipher: Cipher, *, migrate: bool = False) -> Iterator[Store]:
    from llm_proxy.store.database import Store

    store = Store(settings.database, cipher=cipher)
    try:
        store.open(migrate=migrate)
        yield store
    finally:
        store.close()


def _finish(settings: Settings, cipher: Cipher, *, yes: bool, as_json: bool) -> None:
    from llm_proxy.server.key_rotation import finish

    confirm("Does every server of this database have the new key?", yes=yes)
    with _opened(settings, cipher) as store:
        is_finished = finish(store, settings)
    if as_json:
        print_json({"database": str(settings.database), "finished": is_finished})
    else:
        tell(
            "The rotation is finished: the old key opens nothing any more."
            if is_finished
            else "There is no rotation to finish."
        )


def _new_key(option: str | None) -> Secret:
    given = _given(option, "--new-key", "NEW_ENCRYPTION_KEY")
    if given is not None:
        return given
    if not sys.stdin.isatty():
        raise typer.BadParameter(
            "give the new key by --new-key FILE (- for stdin) or NEW_ENCRYPTION_KEY, or --generate"
        )
    answer = typer.prompt("New encryption key", hide_input=True, confirmation_prompt=True, err=True)
    return _checked(str(answer), "the new key")


def _old_key(option: str | None) -> Secret | None:
    return _given(option, "--old-key", "OLD_ENCRYPTION_KEY")


def _given(option: str | None, name: str, variable: str) -> Secret | None:
    """What an option's file, stdin or an environment variable holds."""
    if option == "-":
        return _checked(read_secret_line(name).reveal(), f"what came from stdin for {name}")
    if option is not None:
        return _checked(_text_of(Path(option), name), f"what {option} holds")
    text = os.environ.get(variable)
    return _checked(text, f"environment variable {variable}") if text else None


def _text_of(path: Path, option: str) -> str:
    try:
        return path.read_text("ascii", "replace")
    except OSError as exc:
        raise typer.BadParameter(f"{option} {path} can't be read: {exc.strerror}") from exc


def _checked(text: str, place: str) -> Secret:
    from llm_proxy.secrets import Secret
    from llm_proxy.setting import parse_encryption_key

    try:
        key = parse_encryption_key(text)
    except ValueError as exc:
        raise typer.BadParameter(f"{place} must be {exc}") from exc
    assert isinstance(key, Secret)
    return key


def _report_rotation(settings: Settings, outcome: Outcome, *, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "database": str(settings.database),
                "old_key_id": outcome.old_key,
                "new_key_id": outcome.new_key,
                "resumed": outcome.was_begun,
                "reencrypted": outcome.reencrypted,
                "old_key_file": outcome.old_key_file and str(outcome.old_key_file),
                "finished": outcome.unfinished_because is None,
                "unfinished_because": outcome.unfinished_because,
            }
        )
        return
    if outcome.was_begun:
        tell("A rotation that was begun before went on.")
    tell(f"{outcome.reencrypted} upstream keys of {settings.database} were re-encrypted.")
    if outcome.old_key_file is not None:
        tell(
            f"The home holds the new key. The old one is in {outcome.old_key_file}: "
            "backups from before need it."
        )
    if outcome.unfinished_because is None:
        tell("The old key opens nothing any more.")
    else:
        tell(
            f"The old key still works beside the new one: {outcome.unfinished_because}. "
            "Then end it with: llm-proxy db rotate-key --finish"
        )


def _contents(data: LegacyData) -> str:
    return f"{len(data.projects)} projects and {len(data.tokens)} tokens"


def _report_import(
    settings: Settings, data: LegacyData, imported: Imported, *, as_json: bool
) -> None:
    if as_json:
        print_json(
            {
                "database": str(settings.database),
                "projects": {"imported": imported.projects, "skipped": imported.projects_there},
                "tokens": {
                    "imported": imported.tokens,
                    "skipped": imported.tokens_there,
                    "unusable": data.unusable,
                },
            }
        )
        return
    from llm_proxy.manage.tables import print_table

    rows = [
        ("projects", imported.projects, imported.projects_there, 0),
        ("tokens", imported.tokens, imported.tokens_there, data.unusable),
    ]
    print_table(("What", "Taken over", "Already there", "Unusable"), rows)
