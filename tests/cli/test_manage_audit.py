from __future__ import annotations

import csv
import io
import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_proxy.audit import decode_record, encode_record
from tests.server.audit_records import make_records

Run = Callable[..., Any]


@pytest.fixture
def actions(manage: Run) -> None:
    """A project and three tokens."""
    assert manage("project", "create", "--name", "=demo", "--api-key", "sk-key").exit_code == 0
    for _ in range(3):
        assert manage("token", "generate").exit_code == 0


@pytest.mark.usefixtures("actions")
def test_list_is_a_narrow_table_the_newest_first(manage: Run) -> None:
    shown = manage("audit", "list", "--limit", "3")
    head, *rows = shown.out.splitlines()
    assert head.split() == ["ID", "ACTION", "OUTCOME", "TIME"]
    assert [row.split()[1] for row in rows] == ["token.create"] * 3
    assert max(map(len, shown.out.splitlines())) <= 80


@pytest.mark.usefixtures("actions")
def test_list_takes_filters(manage: Run) -> None:
    shown = manage("audit", "list", "--action", "project.create", "--actor", "management_api")
    assert len(shown.out.splitlines()) == 2
    found = json.loads(manage("audit", "list", "--json", "--action", "token.create").out)
    assert len(found) == 3
    one = found[0]["token_id"]
    options = ("--token-id", one, "--since", "2020-01-01T00:00:00Z", "--search", "TOKENS")
    assert [r["token_id"] for r in json.loads(manage("audit", "list", "--json", *options).out)] == [
        one
    ]
    assert "No such records" in manage("audit", "list", "--until", "2020-01-01T00:00:00Z").err
    refused = manage("audit", "list", "--outcome", "maybe")
    assert refused.exit_code == 1
    assert "success, failure, denied, error" in refused.err
    refused = manage("audit", "list", "--since", "2030-01-01")
    assert refused.exit_code == 2
    assert "--since" in refused.err
    assert "not '2030-01-01'" in refused.err


@pytest.mark.usefixtures("actions")
def test_show_tells_one_record_in_full(manage: Run) -> None:
    (record,) = json.loads(manage("audit", "list", "--json", "--limit", "1").out)
    shown = manage("audit", "show", record["id"])
    assert record["hash"] in shown.out
    assert '"fields":["duration_minutes"' in shown.out
    assert json.loads(manage("audit", "show", record["id"], "--json").out)["id"] == record["id"]
    assert manage("audit", "show", "nothing").exit_code == 4


@pytest.mark.usefixtures("actions")
def test_export_writes_lines_as_they_were_sealed(manage: Run, tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    shown = manage("audit", "export", "-o", str(file), "--action", "token.create")
    assert (shown.exit_code, shown.out, shown.err) == (0, "", "3 records.\n")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    for line in file.read_bytes().splitlines():
        assert encode_record(decode_record(line)) == line
    again = manage("audit", "export", "-o", str(file))
    assert again.exit_code == 2
    assert "exists already" in again.err
    assert len(manage("audit", "export").out.splitlines()) > 3


def test_export_that_fails_leaves_no_file(manage: Run, tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    refused = manage("audit", "export", "-o", str(file), "--outcome", "maybe")
    assert refused.exit_code == 1
    assert not file.exists()


@pytest.mark.usefixtures("actions")
def test_export_as_csv_is_safe_in_a_spreadsheet(manage: Run, control_plane: str) -> None:
    import httpx

    wrong = {"Authorization": "Bearer wrong", "User-Agent": '=cmd|"/c calc"!A1'}
    httpx.get(f"{control_plane}/manage/projects", headers=wrong, trust_env=False)
    rows = list(csv.DictReader(io.StringIO(manage("audit", "export", "--format", "csv").out)))
    denied = next(row for row in rows if row["action"] == "auth.failed")
    assert denied["user_agent"] == '\'=cmd|"/c calc"!A1'
    assert manage("audit", "export", "--format", "xml").exit_code == 2


@pytest.mark.usefixtures("actions")
def test_verify_asks_the_server(manage: Run) -> None:
    shown = manage("audit", "verify")
    assert shown.exit_code == 0
    assert "4 records, 1 to 4" in shown.out
    report = json.loads(manage("audit", "verify", "--json").out)
    assert report["sound"] is True
    assert manage("audit", "verify", "--hash", "abc").exit_code == 2


def test_verify_checks_files_without_a_server(llm_proxy: Run, tmp_path: Path) -> None:
    records = make_records(4)
    lines = [encode_record(record) + b"\n" for record in records]
    (tmp_path / "new").write_bytes(b"".join(lines[2:]))
    (tmp_path / "old").write_bytes(b"".join(lines[:2]))
    files = [str(tmp_path / "new"), str(tmp_path / "old")]
    sound = llm_proxy("manage", "audit", "verify", *files, "--hash", records[-1].hash)
    assert (sound.exit_code, sound.out.split()[0]) == (0, "ok")
    (tmp_path / "new").write_bytes(lines[2])
    earlier = llm_proxy("manage", "audit", "verify", *files, "--hash", records[0].hash)
    assert earlier.exit_code == 0
    cut = llm_proxy("manage", "audit", "verify", *files, "--hash", records[-1].hash)
    assert cut.exit_code == 1
    assert f"truncated at {tmp_path / 'new'}: no record has the hash" in cut.out
    (tmp_path / "old").write_bytes(lines[0])
    torn = llm_proxy("manage", "audit", "verify", *files)
    assert torn.exit_code == 1
    assert "removed" in torn.out
    assert f"{tmp_path / 'new'}:1, record 3" in torn.out
    (tmp_path / "empty").touch()
    assert "no records" in llm_proxy("manage", "audit", "verify", str(tmp_path / "empty")).out
    missing = llm_proxy("manage", "audit", "verify", str(tmp_path / "none"))
    assert missing.exit_code == 1
    assert "can't be read" in missing.err
