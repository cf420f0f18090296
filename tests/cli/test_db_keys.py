from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
import typer

from llm_proxy.cli.db_keys import checked_key, found_key, given_key
from llm_proxy.errors import ConfigError
from llm_proxy.secrets import key_id, new_encryption_key

KEY = new_encryption_key()


def given(option: str | None) -> str | None:
    key = given_key(option, "--new-key", "NEW_ENCRYPTION_KEY")
    return None if key is None else key.reveal()


def test_a_key_comes_from_a_file_stdin_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = KEY.reveal()
    file = tmp_path / "key"
    file.write_text(f"{text}\n")
    assert given(None) is None
    assert given(str(file)) == text
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{text}\n"))
    assert given("-") == text
    monkeypatch.setenv("NEW_ENCRYPTION_KEY", text)
    assert given(None) == text


@pytest.mark.parametrize("content", [b"", b"canary", b"\xff\xfe", b"A" * 44])
def test_a_file_without_a_key_is_named_and_what_it_holds_is_not(
    tmp_path: Path, content: bytes
) -> None:
    file = tmp_path / "key"
    file.write_bytes(content)
    with pytest.raises(typer.BadParameter, match="must be 32 bytes in base64") as refused:
        given(str(file))
    assert str(file) in str(refused.value)
    assert "canary" not in str(refused.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(typer.BadParameter, match="--new-key .* can't be read"):
        given(str(tmp_path))


def test_a_key_that_was_typed_must_be_one() -> None:
    with pytest.raises(typer.BadParameter, match="^the new key must be 32 bytes"):
        checked_key("canary", "the new key")


def test_the_key_is_that_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="there is no ENCRYPTION_KEY here"):
        found_key(None)
    monkeypatch.setenv("ENCRYPTION_KEY", KEY.reveal())
    settings, cipher, place = found_key(None)
    assert settings.encryption_key == KEY
    assert cipher.key_id == key_id(KEY)
    assert place is None  # not the home
