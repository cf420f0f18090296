"""Which host this is, to others that share its database."""

from __future__ import annotations

import logging
import os
import uuid
from pathlib import Path

from llm_proxy.errors import ConfigError
from llm_proxy.home import Home

logger = logging.getLogger(__name__)

_FILE = "host_id"


def host_identity(home: Home) -> str:
    """A random name, made once for each home; a copy of a home gets another.

    The file names its own inode, by which a copy is known. The copy of a whole disk isn't: then
    two servers take each other's leases for their own, which costs permits but admits none twice.
    """
    path = home.path / _FILE
    try:
        found = _read(path)
        return found if found is not None else _make(path)
    except OSError as exc:
        raise ConfigError(f"the host's name in {path} can't be kept: {exc.strerror}") from exc


def _read(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            words = file.read(200).decode("ascii", "replace").split()
            inode = os.fstat(file.fileno()).st_ino
    except FileNotFoundError:
        return None
    if len(words) == 2 and words[1] == str(inode):
        return words[0]
    logger.warning("%s is a copy, or damaged: this home becomes another host", path)
    return None


def _make(path: Path) -> str:
    """The caller holds the home, so nobody else does the same."""
    name = str(uuid.uuid4())
    draft = path.with_name(f".{path.name}.{name}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(f"{name} {os.fstat(descriptor).st_ino}\n".encode())
            file.flush()
            os.fsync(descriptor)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return name
