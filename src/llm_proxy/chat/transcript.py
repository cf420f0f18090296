"""Conversations in files: JSON with a version, for their owner alone."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Final, Literal

import msgspec

from llm_proxy.chat.conversation import Conversation, Turn
from llm_proxy.chat.question import Api
from llm_proxy.errors import LLMProxyError
from llm_proxy.home import write_private

FORMAT: Final = "llm-proxy chat"
VERSION: Final = 1
_LARGEST: Final = 64 << 20


class _Message(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
    role: Literal["user", "assistant"]
    content: str
    model: str | None = None  # of an answer
    stopped: bool = False


class _File(msgspec.Struct, forbid_unknown_fields=True):
    format: str
    version: int
    api: Api
    model: str
    system: str | None
    messages: list[_Message]


class _Kind(msgspec.Struct):
    """Read first: a file of another kind or version is told apart from a broken one."""

    format: str | None = None
    version: int | None = None


def save(path: Path, conversation: Conversation, api: Api, *, replaces: bool) -> bool:
    """Whether a file was replaced. Raises FileExistsError unless that may be, and LLMProxyError."""
    was_there = _is_file(path)
    messages = []
    for turn in conversation.turns:
        messages.append(_Message("user", turn.asked))
        messages.append(_Message("assistant", turn.said, turn.model, turn.was_stopped))
    file = _File(FORMAT, VERSION, api, conversation.model, conversation.system, messages)
    text = msgspec.json.format(msgspec.json.encode(file), indent=2).decode()
    write_private(path, text + "\n", replace=replaces)
    return was_there


def load(path: Path) -> tuple[Conversation, Api]:
    """Raises LLMProxyError."""
    raw = _read(path)
    try:
        kind = msgspec.json.decode(raw, type=_Kind)
        if kind.format != FORMAT:
            raise LLMProxyError(f"{path} wasn't written by /save")
        if kind.version != VERSION:
            raise LLMProxyError(
                f"{path} has version {kind.version} of the format, and only {VERSION} is known; "
                "use the llm-proxy that wrote it"
            )
        file = msgspec.json.decode(raw, type=_File)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise LLMProxyError(f"{path} can't be loaded: {exc}") from exc
    return Conversation(model=file.model, system=file.system, turns=_turns(path, file)), file.api


def _turns(path: Path, file: _File) -> list[Turn]:
    turns = []
    for index in range(0, len(file.messages), 2):
        asked, *answer = file.messages[index : index + 2]
        if asked.role != "user" or [m.role for m in answer] != ["assistant"]:
            raise LLMProxyError(
                f"{path} can't be loaded: a question of the user and its answer must take turns, "
                f"and messages {index} and {index + 1} don't"
            )
        said = answer[0]
        turns.append(
            Turn(
                asked=asked.content,
                said=said.content,
                model=said.model or file.model,
                was_stopped=said.stopped,
            )
        )
    return turns


def _is_file(path: Path) -> bool:
    """False when nothing is there; raises LLMProxyError for what is neither: a device would be
    replaced, and a pipe may never end."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return False
    except (OSError, ValueError) as exc:  # ValueError: a NUL in it
        reason = exc.strerror if isinstance(exc, OSError) else exc
        raise LLMProxyError(f"{path} can't be used: {reason}; name another file") from exc
    if stat.S_ISDIR(mode):
        raise LLMProxyError(f"{path} is a folder; name a file")
    if not stat.S_ISREG(mode):
        raise LLMProxyError(f"{path} is a device, a pipe or a socket; name a file")
    return True


def _read(path: Path) -> bytes:
    _is_file(path)
    try:
        with path.open("rb") as file:
            raw = file.read(_LARGEST + 1)
    except OSError as exc:
        raise LLMProxyError(f"{path} can't be read: {exc.strerror or exc}") from exc
    if len(raw) > _LARGEST:
        raise LLMProxyError(f"{path} is larger than {_LARGEST >> 20} MiB, so it isn't loaded")
    return raw
