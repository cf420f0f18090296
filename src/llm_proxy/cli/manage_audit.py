"""`llm-proxy manage audit`."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

import typer

from llm_proxy.cli.manage_access import (
    AsJSON,
    BaseUrl,
    ManagementToken,
    connect,
    print_json,
    tell,
)
from llm_proxy.errors import LLMProxyError

if TYPE_CHECKING:
    from llm_proxy.audit import AuditRecord
    from llm_proxy.audit_chain import Verdict

app = typer.Typer(
    help="The audit log: who changed what, and what was refused.", no_args_is_help=True
)

Action = Annotated[
    str | None, typer.Option("--action", metavar="NAME", help="Like token.create, auth.failed.")
]
Outcome = Annotated[
    str | None, typer.Option("--outcome", help="success, failure, denied or error.")
]
Actor = Annotated[
    str | None, typer.Option("--actor", metavar="NAME", help="management_api, system or cli.")
]
ProjectId = Annotated[str | None, typer.Option("--project-id", metavar="ID")]
TokenId = Annotated[str | None, typer.Option("--token-id", metavar="ID")]
ClientIP = Annotated[str | None, typer.Option("--client-ip", metavar="ADDRESS")]
RequestId = Annotated[str | None, typer.Option("--request-id", metavar="ID")]
Search = Annotated[
    str | None, typer.Option("--search", metavar="TEXT", help="Anywhere in a record.")
]


def _check_time(value: str | None) -> str | None:
    with contextlib.suppress(ValueError):
        if value is None or datetime.fromisoformat(value).tzinfo is not None:
            return value
    raise typer.BadParameter(
        f"must be a time with its zone, like 2030-01-31T12:00:00Z, not {value!r}"
    )


Since = Annotated[
    str | None,
    typer.Option(
        "--since",
        metavar="TIME",
        callback=_check_time,
        help="RFC 3339, like 2030-01-31T12:00:00Z.",
    ),
]
Until = Annotated[
    str | None,
    typer.Option("--until", metavar="TIME", callback=_check_time, help="Likewise."),
]

# A spreadsheet would take a text that begins like this for a formula.
_FORMULA = ("=", "+", "-", "@", "\t")


@app.command("list")
def list_records(
    *,
    action: Action = None,
    outcome: Outcome = None,
    actor: Actor = None,
    project_id: ProjectId = None,
    token_id: TokenId = None,
    client_ip: ClientIP = None,
    request_id: RequestId = None,
    search: Search = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[
        int, typer.Option("--limit", metavar="N", min=1, help="How many at most.")
    ] = 50,
    base_url: BaseUrl = None,
    token: ManagementToken = None,
    as_json: AsJSON = False,
) -> None:
    """List records, the newest first.

    Example: llm-proxy manage audit list --action proxy.refused --since 2030-01-31T00:00:00Z
    """
    filters = _filters(locals())
    with connect(base_url, token) as client:
        records = list(client.audit_records(filters, most=limit))
    if as_json:
        print_json(records)
        return
    from llm_proxy.manage.tables import print_table

    rows = [(r.id, r.action, r.outcome, _moment(r).strftime("%m-%d %H:%MZ")) for r in records]
    print_table(("Id", "Action", "Outcome", "Time"), rows)
    if not records:
        tell("No such records.")


@app.command()
def show(
    record_id: Annotated[str, typer.Argument(metavar="ID", help="Id of the record.")],
    *,
    base_url: BaseUrl = None,
    token: ManagementToken = None,
    as_json: AsJSON = False,
) -> None:
    """Show one record."""
    with connect(base_url, token) as client:
        record = client.get_audit_record(record_id)
    if as_json:
        print_json(record)
        return
    import msgspec

    from llm_proxy.manage.tables import print_details

    print_details(
        [
            ("Id", record.id),
            ("Time", record.timestamp),
            ("Action", record.action),
            ("Outcome", record.outcome),
            ("Reason", record.reason),
            ("Actor", record.actor),
            ("Client", record.client_ip),
            ("User agent", record.user_agent),
            ("Request", record.request_id),
            ("Method", record.method),
            ("Path", record.path),
            ("Project", record.project_id),
            ("Token", record.token_id),
            ("Details", msgspec.json.encode(record.details).decode() if record.details else None),
            ("Chain", f"{record.chain}, record {record.sequence}"),
            ("Hash", record.hash),
        ]
    )


@app.command()
def export(
    *,
    file_format: Annotated[str, typer.Option("--format", help="jsonl or csv.")] = "jsonl",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="A new file; else stdout."),
    ] = None,
    action: Action = None,
    outcome: Outcome = None,
    actor: Actor = None,
    project_id: ProjectId = None,
    token_id: TokenId = None,
    client_ip: ClientIP = None,
    request_id: RequestId = None,
    search: Search = None,
    since: Since = None,
    until: Until = None,
    base_url: BaseUrl = None,
    token: ManagementToken = None,
) -> None:
    """Write all records, or those chosen, the newest first.

    Example: llm-proxy manage audit export --format csv -o audit.csv
    """
    writers = {"jsonl": _write_lines, "csv": _write_csv}
    if file_format not in writers:
        raise typer.BadParameter(f"--format must be jsonl or csv, not {file_format!r}")
    filters = _filters(locals())
    with connect(base_url, token) as client, _opened(output) as file:
        count = writers[file_format](client.audit_records(filters, most=None), file)
    tell(f"{count} records.")


@app.command()
def verify(
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[FILE]...",
            help="Files of one audit log, rotated ones included; without any the server checks "
            "its database and file.",
        ),
    ] = None,
    *,
    kept_hash: Annotated[
        str | None,
        typer.Option(
            "--hash",
            metavar="HEX",
            help="Kept from an earlier time: of a record that must be there.",
        ),
    ] = None,
    base_url: BaseUrl = None,
    token: ManagementToken = None,
    as_json: AsJSON = False,
) -> None:
    """Check that no record was changed, removed or moved; exit 1 with the first that was.

    Example: llm-proxy manage audit verify audit.jsonl audit.jsonl.1
    """
    if files:
        verdicts = [_verify_files(files, kept_hash)]
    elif kept_hash is not None:
        raise typer.BadParameter("--hash is looked for in files; name them")
    else:
        with connect(base_url, token) as client:
            verdicts = client.verify_audit().chains
    is_sound = all(verdict.is_sound for verdict in verdicts)
    if as_json:
        print_json({"sound": is_sound, "chains": verdicts})
    else:
        for verdict in verdicts:
            _tell_verdict(verdict)
    if not is_sound:
        raise typer.Exit(1)


def _verify_files(files: list[Path], kept_hash: str | None) -> Verdict:
    from llm_proxy.audit_chain import verify_files

    try:
        return verify_files(files, kept_hash=kept_hash)
    except OSError as exc:
        reason = exc.strerror or str(exc)
        raise LLMProxyError(f"the audit log {exc.filename} can't be read: {reason}") from exc


def _tell_verdict(verdict: Verdict) -> None:
    if (fault := verdict.fault) is not None:
        print(f"BROKEN  {verdict.place}")
        which = "" if fault.sequence is None else f", record {fault.sequence}"
        print(f"        {fault.kind} at {fault.place}{which}: {fault.message}")
        return
    print(f"ok      {verdict.place}")
    if not verdict.records:
        print("        no records")
        return
    print(f"        {verdict.records} records, {verdict.first} to {verdict.last}")
    print(f"        {verdict.head_hash}")


def _filters(options: dict[str, object]) -> dict[str, str]:
    names = {
        **{name: name for name in ("action", "outcome", "actor", "project_id", "token_id")},
        **{name: name for name in ("client_ip", "request_id", "search")},
        "since": "start_time",
        "until": "end_time",
    }
    return {
        parameter: value
        for option, parameter in names.items()
        if isinstance(value := options[option], str)
    }


@contextlib.contextmanager
def _opened(output: Path | None) -> Iterator[IO[str]]:
    if output is None:
        yield sys.stdout
        return
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        descriptor = os.open(output, flags, 0o600)
    except FileExistsError as exc:
        raise typer.BadParameter(f"--output: {output} exists already; name a new file") from exc
    except OSError as exc:
        raise LLMProxyError(f"{output} can't be written: {exc.strerror}") from exc
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
            yield file
    except BaseException:
        output.unlink(missing_ok=True)  # half of an export looks like a whole one
        raise


def _write_lines(records: Iterable[AuditRecord], file: IO[str]) -> int:
    from llm_proxy.audit import encode_record

    count = 0
    for record in records:
        file.write(encode_record(record).decode() + "\n")
        count += 1
    return count


def _write_csv(records: Iterable[AuditRecord], file: IO[str]) -> int:
    import csv

    import msgspec

    from llm_proxy.audit import AuditRecord

    writer = csv.writer(file)
    writer.writerow(AuditRecord.__struct_fields__)
    count = 0
    for record in records:
        count += 1
        fields = msgspec.structs.asdict(record)
        fields["details"] = msgspec.json.encode(record.details, order="sorted").decode()
        writer.writerow([_cell(value) for value in fields.values()])
    return count


def _cell(value: object) -> object:
    is_formula = isinstance(value, str) and value.startswith(_FORMULA)
    return f"'{value}" if is_formula else value


def _moment(record: AuditRecord) -> datetime:
    return datetime.fromisoformat(record.timestamp).astimezone(UTC)
