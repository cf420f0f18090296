"""`llm-proxy db encrypt`: what isn't encrypted yet, and data of the older program."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llm_proxy.cli.db_keys import AsJSON, Database, Yes, found_key, given_key, opened
from llm_proxy.cli.manage_access import confirm, print_json
from llm_proxy.errors import StoreError
from llm_proxy.settings import Settings, resolve_settings

if TYPE_CHECKING:
    from llm_proxy.secrets import Cipher
    from llm_proxy.store.encryption import Encrypted
    from llm_proxy.store.legacy import LegacyData
    from llm_proxy.store.legacy_import import Imported


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

    settings, cipher, _ = found_key(db)
    with opened(settings, cipher) as store:
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
    others = [
        key
        for key in (given_key(old_key, "--old-key", "OLD_ENCRYPTION_KEY"), settings.encryption_key)
        if key is not None
    ]
    data = read_legacy(source, [Cipher(key) for key in others], now=now)
    if not yes and not sys.stdin.isatty():
        raise typer.BadParameter("confirm with --yes what is written to the database")
    question = f"Take over {_contents(data)} into {settings.database}?"
    confirm(question, yes=yes)
    settings, cipher, made = _with_key(settings)
    try:
        with opened(settings, cipher, migrate=True) as store:
            imported = import_legacy(store, data, api=api, at=now)
    except StoreError:
        for path in made:  # it must not pass for the key of a database that has another
            path.unlink(missing_ok=True)
        raise
    _report_import(settings, data, imported, as_json=as_json)


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
