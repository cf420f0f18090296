from __future__ import annotations

import base64
import pickle
import subprocess
import sys
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.errors import ConfigError, StoreError
from llm_proxy.secrets import (
    Cipher,
    Secret,
    is_encrypted,
    is_well_formed_token,
    key_id,
    mask,
    may_be_legacy_token,
    new_encryption_key,
    new_management_token,
    new_token,
    token_digest,
)


def test_a_secret_formats_as_stars_everywhere() -> None:
    secret = Secret("canary")
    shown = [repr(secret), str(secret), f"{secret}", f"{secret:>20}", "%s" % secret]  # noqa: UP031
    assert shown == ["***"] * 5
    assert "canary" not in repr({"key": [secret]})


def test_a_secret_cannot_be_pickled() -> None:
    with pytest.raises(TypeError, match="can't be pickled"):
        pickle.dumps(Secret("canary"))


def test_secrets_compare_by_what_they_hold() -> None:
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert len({Secret("a"), Secret("a")}) == 1
    assert Secret("a").matches("a")
    assert not Secret("a").matches("ä")
    assert not Secret("")
    assert Secret("a")


def test_new_tokens_are_well_formed_and_all_different() -> None:
    tokens = {new_token().reveal() for _ in range(500)}
    assert len(tokens) == 500
    for token in tokens:
        assert token.startswith("sk-")
        assert is_well_formed_token(token.encode())


@given(st.integers(0, 34), st.integers(0, 255))
def test_one_altered_byte_breaks_a_token(position: int, byte: int) -> None:
    token = bytearray(new_token().reveal().encode())
    if token[position] != byte:
        token[position] = byte
        assert not is_well_formed_token(bytes(token))


@given(st.binary(max_size=64))
def test_no_bytes_make_the_token_check_fail(text: bytes) -> None:
    assert not is_well_formed_token(text)
    assert not is_well_formed_token(b"sk-" + text[:32])


def test_the_digest_of_a_token_is_its_sha256() -> None:
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert token_digest(b"abc").hex() == known


@pytest.mark.parametrize("text", ["", "short", "fifteen-letters"])
def test_short_keys_are_masked_entirely(text: str) -> None:
    assert mask(text) == "****"


def test_a_mask_shows_ends_only() -> None:
    assert mask("sk-proj-abcdefghijklmnop-x9Zk") == "sk-proj…x9Zk"


def test_management_tokens_have_256_random_bits() -> None:
    assert len(new_management_token().reveal()) == 64
    assert new_management_token() != new_management_token()


@given(st.text())
def test_what_was_encrypted_decrypts(text: str) -> None:
    cipher = Cipher(new_encryption_key())
    stored = cipher.encrypt(Secret(text))
    assert stored.startswith("enc:v1:")
    assert cipher.decrypt(stored).reveal() == text


def test_the_same_key_is_encrypted_differently_every_time() -> None:
    cipher = Cipher(new_encryption_key())
    assert cipher.encrypt(Secret("k")) != cipher.encrypt(Secret("k"))


def test_another_key_does_not_decrypt() -> None:
    stored = Cipher(new_encryption_key()).encrypt(Secret("canary"))
    with pytest.raises(StoreError, match="another ENCRYPTION_KEY") as caught:
        Cipher(new_encryption_key()).decrypt(stored)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("stored", ["", "plain", "enc:v1:", "enc:v1:%%%", "enc:v1:AAAA"])
def test_what_is_not_encrypted_is_refused(stored: str) -> None:
    with pytest.raises(StoreError):
        Cipher(new_encryption_key()).decrypt(stored)


def test_an_altered_ciphertext_is_refused() -> None:
    cipher = Cipher(new_encryption_key())
    sealed = bytearray(base64.b64decode(cipher.encrypt(Secret("x")).removeprefix("enc:v1:")))
    sealed[-1] ^= 1
    with pytest.raises(StoreError):
        cipher.decrypt("enc:v1:" + base64.b64encode(sealed).decode())


@pytest.mark.parametrize(
    "key", ["", "abc", "A" * 43, "é" * 44, base64.b64encode(bytes(16)).decode()]
)
def test_an_encryption_key_of_another_form_is_refused(key: str) -> None:
    with pytest.raises(ConfigError, match="32 bytes in base64"):
        Cipher(Secret(key))


def test_importing_secrets_does_not_import_cryptography() -> None:
    code = "import sys, llm_proxy.secrets; sys.exit('cryptography' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@given(st.text())
def test_any_text_comes_back_from_its_encryption(text: str) -> None:
    cipher = Cipher(new_encryption_key())
    stored = cipher.encrypt(Secret(text))
    assert is_encrypted(stored)
    assert cipher.opens(stored)
    assert cipher.decrypt(stored).reveal() == text


def test_a_wrapped_key_is_for_holders_of_the_wrapping_one() -> None:
    old, new, other = (Cipher(new_encryption_key()) for _ in range(3))
    wrapped = old.wrap(new)
    opened = old.unwrap(wrapped)
    assert opened is not None
    assert opened.key_id == new.key_id != old.key_id
    assert opened.decrypt(new.encrypt(Secret("x"))) == Secret("x")
    assert other.unwrap(wrapped) is None
    assert new.unwrap(wrapped) is None


def test_a_wrapped_key_and_a_value_are_never_taken_for_each_other() -> None:
    """Somebody who can write to the database must not get a key sent upstream."""
    old, new = Cipher(new_encryption_key()), Cipher(new_encryption_key())
    wrapped, value = old.wrap(new), old.encrypt(new.key)
    assert old.unwrap(value) is None
    assert old.unwrap(value.replace("enc:v1:", "key:v1:")) is None
    assert not old.opens(wrapped)
    assert not old.opens(wrapped.replace("key:v1:", "enc:v1:"))


@pytest.mark.parametrize("stored", ["", "enc:v1:", "enc:v1:AAAA", "enc:v1:é", "sk-plain"])
def test_what_no_key_wrote_is_opened_by_none(stored: str) -> None:
    assert not Cipher(new_encryption_key()).opens(stored)


def test_key_ids_tell_keys_apart_however_they_are_written() -> None:
    one, other = new_encryption_key(), new_encryption_key()
    assert key_id(one) == key_id(Secret(one.reveal())) == Cipher(one).key_id
    assert key_id(one) != key_id(other)
    assert key_id(one) not in one.reveal()


@given(st.uuids())
def test_tokens_of_the_older_program_are_known_by_their_form(identity: uuid.UUID) -> None:
    encoded = base64.urlsafe_b64encode(identity.bytes).rstrip(b"=")
    assert may_be_legacy_token(b"sk-" + encoded)
    assert not is_well_formed_token(b"sk-" + encoded)


@pytest.mark.parametrize(
    "token",
    [
        b"",
        b"sk-",
        b"sk-AAAAAAAAAAAAAAAAAAAAA",
        b"sk-AAAAAAAAAAAAAAAAAAAAAAA",
        b"sk-AAAAAAAAAAAAAAAAAAAAAB",
        b"sk-AAAAAAAAAAAAAAAAAAAA+A",
        b"sk-AAAAAAAAAAAAAAAAAAAA=A",
        b"pk-AAAAAAAAAAAAAAAAAAAAAA",
    ],
)
def test_other_strings_are_no_tokens_of_the_older_program(token: bytes) -> None:
    assert not may_be_legacy_token(token)


def test_own_token_is_none_of_the_older_program() -> None:
    assert not may_be_legacy_token(new_token().reveal().encode())
