"""`llm-proxy db rotate-key`: another key for the stored upstream keys."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llm_proxy.cli.db_keys import AsJSON, Database, Yes, checked_key, found_key, given_key, opened
from llm_proxy.cli.manage_access import confirm, print_json, tell
from llm_proxy.settings import Settings

if TYPE_CHECKING:
    from llm_proxy.secrets import Cipher, Secret
    from llm_proxy.server.key_rotation import Outcome


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

    ENCRYPTION_KEY is the old key; one that the home keeps is replaced there.
    A key from elsewhere goes on working beside the new one, until every server
    has that and you --finish.

    Example: llm-proxy db rotate-key --generate
    """
    from datetime import UTC, datetime

    from llm_proxy.server.key_rotation import rotate

    if sum((finish, generate, new_key is not None)) > 1:
        raise typer.BadParameter("only one of --new-key, --generate and --finish can be given")
    settings, cipher, place = found_key(db)
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
    with opened(settings, cipher) as store:
        outcome = rotate(
            store,
            settings,
            wanted,
            place=place,
            is_shared=not isinstance(settings.database, Path),
            at=datetime.now(UTC),
        )
    _report_rotation(settings, outcome, as_json=as_json)


def _finish(settings: Settings, cipher: Cipher, *, yes: bool, as_json: bool) -> None:
    from llm_proxy.server.key_rotation import finish

    confirm("Does every server of this database have the new key?", yes=yes)
    with opened(settings, cipher) as store:
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
    given = given_key(option, "--new-key", "NEW_ENCRYPTION_KEY")
    if given is not None:
        return given
    if not sys.stdin.isatty():
        raise typer.BadParameter(
            "give the new key by --new-key FILE (- for stdin) or NEW_ENCRYPTION_KEY, or --generate"
        )
    answer = typer.prompt("New encryption key", hide_input=True, confirmation_prompt=True, err=True)
    return checked_key(str(answer), "the new key")


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
    tell(f"Upstream keys of {settings.database} that were re-encrypted: {outcome.reencrypted}.")
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
