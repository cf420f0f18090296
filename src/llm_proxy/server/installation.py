"""What `setup` leaves behind: an env file, a provider file, and the first project with a token."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from llm_proxy.audit import AuditEntry
from llm_proxy.database_url import DatabaseUrl
from llm_proxy.env_file import quoted, read_env_file
from llm_proxy.errors import ConfigError
from llm_proxy.home import Home, write_private
from llm_proxy.provider_file import builtin_text
from llm_proxy.secrets import (
    Cipher,
    Secret,
    mask,
    new_encryption_key,
    new_management_token,
    new_token,
    token_digest,
)
from llm_proxy.server.host_identity import host_identity
from llm_proxy.settings import Settings, refuse_missing_key
from llm_proxy.store.audit import append_entries
from llm_proxy.store.database import Store
from llm_proxy.store.projects import Project, create_project
from llm_proxy.store.tokens import Token, create_token


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstProject:
    name: str
    keys: Mapping[str, Secret]  # upstream keys by name of the api
    token_lifetime_s: float
    max_requests: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    project_id: str
    token_id: str
    token: Secret
    expires_at: datetime


def refuse_existing_files(home: Home) -> None:
    for path in (home.env_file, home.providers_file):
        if path.exists():
            raise ConfigError(
                f"{path} exists already; `llm-proxy setup --force` replaces it "
                "(its secrets and other settings are kept)"
            )


def install(
    settings: Settings, *, default_api: str, project: FirstProject | None, now: datetime
) -> Issued | None:
    """Writes everything, or after a failure nothing. Secrets that exist are kept, always."""
    home = settings.home
    refuse_missing_key(settings)
    management_token = settings.management_token or new_management_token()
    encryption_key = settings.encryption_key or new_encryption_key()
    entries = {
        "MANAGEMENT_TOKEN": management_token.reveal(),
        "ENCRYPTION_KEY": encryption_key.reveal(),
        "LISTEN_ADDR": str(settings.listen_addr),
        "API_CONFIG_PATH": str(home.providers_file),
    }
    backup = home.providers_file.with_suffix(".yaml.bak")
    home.ensure()
    with _unchanged_on_failure(home.env_file, home.providers_file, backup):
        if home.providers_file.exists():
            write_private(backup, home.providers_file.read_text("utf-8"))
        write_private(home.providers_file, _provider_text(default_api))
        write_private(home.env_file, _env_text(_entries(home.env_file) | entries))
        if project is None:
            return None
        audited = home if settings.audit_enabled else None
        return _issue(settings.database, Cipher(encryption_key), project, now=now, audited=audited)


@contextlib.contextmanager
def _unchanged_on_failure(*paths: Path) -> Iterator[None]:
    before = {path: path.read_text("utf-8") if path.exists() else None for path in paths}
    try:
        yield
    except BaseException:
        for path, text in before.items():
            if text is None:
                path.unlink(missing_ok=True)
            else:
                write_private(path, text)
        raise


def _provider_text(default_api: str) -> str:
    return builtin_text().replace("default_api: openai", f"default_api: {default_api}", 1)


def _entries(path: Path) -> dict[str, str]:
    return {entry.name: entry.value for entry in read_env_file(path)} if path.exists() else {}


def _env_text(entries: Mapping[str, str]) -> str:
    lines = [f"{name}={quoted(value)}\n" for name, value in entries.items()]
    head = (
        "# Settings of llm-proxy, read from its home folder. ENCRYPTION_KEY opens the upstream\n"
        "# keys in the database: without it a backup of the database is worth nothing.\n"
    )
    return head + "".join(lines)


def _issue(
    target: Path | DatabaseUrl,
    cipher: Cipher,
    first: FirstProject,
    *,
    now: datetime,
    audited: Home | None,
) -> Issued:
    """`audited` is the home whose audit log is told."""
    path = target if isinstance(target, Path) else None
    was_there = path is None or path.exists()
    store = Store(target, cipher=cipher)
    try:
        store.open(migrate=True)
        with store.writing():
            issued = _create(store, first, now)
            if audited is not None:
                append_entries(store, host_identity(audited), _audit_entries(issued), at=now)
            return issued
    except BaseException:
        if path is not None and not was_there:
            store.close()
            for suffix in ("", "-wal", "-shm", "-journal"):
                path.with_name(path.name + suffix).unlink(missing_ok=True)
        raise
    finally:
        store.close()


def _create(store: Store, first: FirstProject, now: datetime) -> Issued:
    project = Project(
        id=str(uuid.uuid4()),
        name=first.name,
        description="",
        metadata={},
        is_active=True,
        deactivated_at=None,
        created_at=now,
        updated_at=now,
        api_keys=first.keys,
    )
    create_project(store, project)
    secret = new_token()
    token = Token(
        id=str(uuid.uuid4()),
        name="setup",
        masked=mask(secret.reveal()),
        project_id=project.id,
        expires_at=now + timedelta(seconds=first.token_lifetime_s),
        is_active=True,
        deactivated_at=None,
        max_requests=first.max_requests,
        request_count=0,
        cache_hit_count=0,
        created_at=now,
        last_used_at=None,
    )
    create_token(store, token, digest=token_digest(secret.reveal().encode()))
    return Issued(
        project_id=project.id,
        token_id=token.id,
        token=secret,
        expires_at=now + timedelta(seconds=first.token_lifetime_s),
    )


def _audit_entries(issued: Issued) -> list[AuditEntry]:
    return [
        AuditEntry(
            action=action,
            actor="cli",
            outcome="success",
            project_id=issued.project_id,
            token_id=token_id,
        )
        for action, token_id in (("project.create", None), ("token.create", issued.token_id))
    ]
