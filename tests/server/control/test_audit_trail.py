from __future__ import annotations

import pytest

from llm_proxy.server.control.audit_trail import (
    Draft,
    NoAudit,
    current_draft,
    note_fields,
    subject_of,
)


@pytest.mark.parametrize(
    ("method", "path", "action", "ids"),
    [
        ("POST", "/manage/projects", "project.create", {}),
        ("PATCH", "/manage/projects/p", "project.update", {"project_id": "p"}),
        ("PUT", "/manage/projects/p", "project.update", {"project_id": "p"}),
        ("DELETE", "/manage/projects/p", "project.delete", {"project_id": "p"}),
        ("POST", "/manage/projects/p/tokens/revoke", "token.revoke_batch", {"project_id": "p"}),
        ("POST", "/manage/tokens", "token.create", {}),
        ("PUT", "/manage/tokens/t", "token.update", {"token_id": "t"}),
        ("DELETE", "/manage/tokens/t", "token.revoke", {"token_id": "t"}),
        ("POST", "/manage/tokens/t/rotate", "token.rotate", {"token_id": "t"}),
        ("GET", "/manage/audit", "audit.list", {}),
        ("HEAD", "/manage/audit", "audit.list", {}),
        ("GET", "/manage/audit/verify", "audit.verify", {}),
        ("GET", "/manage/audit/x", "audit.show", {}),
        ("POST", "/manage/nothing/here", "management.request", {}),
        ("DELETE", "/manage", "management.request", {}),
    ],
)
def test_every_action_has_its_name(
    method: str, path: str, action: str, ids: dict[str, str]
) -> None:
    assert subject_of(method, path) == (action, ids)


@pytest.mark.parametrize("path", ["/manage/projects", "/manage/tokens/t", "/manage"])
def test_plain_reads_are_not_recorded(path: str) -> None:
    assert subject_of("GET", path) is None


def make_draft() -> Draft:
    return Draft(
        action="token.create",
        client_ip=None,
        request_id="r",
        method="POST",
        path="/manage/tokens",
        user_agent=None,
    )


def test_names_of_fields_are_noted_for_the_request_at_hand() -> None:
    note_fields(["name"])  # there is none
    draft = make_draft()
    reset = current_draft.set(draft)
    note_fields({"project_id": "secret", "name": "secret"})
    note_fields([])
    current_draft.reset(reset)
    assert draft.details == {"fields": ["name", "project_id"]}


@pytest.mark.parametrize(
    ("kind", "project_id", "token_id"),
    [("project", "x", None), ("project_cut", "x", None), ("token_cut", None, "x")],
)
def test_what_was_changed_becomes_part_of_the_record(
    kind: str, project_id: str | None, token_id: str | None
) -> None:
    draft = make_draft()
    draft.concerns(kind, "x")
    entry = draft.entry("success")
    assert (entry.project_id, entry.token_id) == (project_id, token_id)


@pytest.mark.anyio
async def test_without_an_audit_log_nothing_is_hindered() -> None:
    none = NoAudit()
    await none.require()
    await none.append(make_draft().entry("success"))
    await none.deny(make_draft().entry("denied"))
    await none.flush()
    assert (none.status, list(await none.verify())) == ("off", [])
