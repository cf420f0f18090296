"""Tokens and keys: make, check, digest, encrypt, mask."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
from typing import NoReturn

from llm_proxy.errors import ConfigError, StoreError

TOKEN_PREFIX = "sk-"
_RANDOM_BYTES = 20
_CHECKSUM_BYTES = 4
_TOKEN_LENGTH = len(TOKEN_PREFIX) + (_RANDOM_BYTES + _CHECKSUM_BYTES) * 4 // 3
_CIPHER_PREFIX = "enc:v1:"
_NONCE_BYTES = 12
_KEY_BYTES = 32


class Secret:
    """Text that can't be printed, logged or pickled by accident; `reveal()` is the one way out."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def matches(self, candidate: str) -> bool:
        """Compares in constant time."""
        return hmac.compare_digest(self._text.encode(), candidate.encode())

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self.matches(other._text)

    def __hash__(self) -> int:
        return hash(self._text)

    def __repr__(self) -> str:
        return "***"

    def __format__(self, spec: str) -> str:
        return "***"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret can't be pickled")


def new_token() -> Secret:
    """`sk-` and 24 bytes in base64url: 160 random bits, then a 32-bit checksum of them."""
    random = os.urandom(_RANDOM_BYTES)
    return Secret(TOKEN_PREFIX + base64.urlsafe_b64encode(random + _checksum(random)).decode())


def is_well_formed_token(token: bytes) -> bool:
    """Whether the checksum is right, so that a guess is refused without a lookup."""
    if len(token) != _TOKEN_LENGTH or not token.startswith(b"sk-"):
        return False
    try:
        raw = binascii.a2b_base64(token[3:].translate(_FROM_URL_SAFE), strict_mode=True)
    except binascii.Error:
        return False
    return raw[_RANDOM_BYTES:] == _checksum(raw[:_RANDOM_BYTES])


_FROM_URL_SAFE = bytes.maketrans(b"-_+/", b"+/\x00\x00")


def _checksum(random: bytes) -> bytes:
    return hashlib.sha256(b"llm-proxy token\x00" + random).digest()[:_CHECKSUM_BYTES]


def token_digest(token: bytes) -> bytes:
    """SHA-256, 32 bytes: all that is ever stored of a token."""
    return hashlib.sha256(token).digest()


def new_management_token() -> Secret:
    return Secret(os.urandom(32).hex())


def mask(text: str) -> str:
    """Enough of a key to recognise it by: `sk-proj-…x9Zk`; short ones are hidden entirely."""
    if len(text) < 16:
        return "****"
    return f"{text[:7]}…{text[-4:]}"


def new_encryption_key() -> Secret:
    return Secret(base64.b64encode(os.urandom(_KEY_BYTES)).decode())


class Cipher:
    """AES-256-GCM over text, stored as `enc:v1:` + base64(nonce + ciphertext)."""

    def __init__(self, key: Secret) -> None:
        """`key` is the base64 of 32 bytes. Raises ConfigError otherwise."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        try:
            raw = base64.b64decode(key.reveal(), validate=True)
        except ValueError:
            raw = b""
        if len(raw) != _KEY_BYTES:
            raise ConfigError(
                "ENCRYPTION_KEY must be 32 bytes in base64; make one with: openssl rand -base64 32"
            )
        self._aead = AESGCM(raw)

    def encrypt(self, secret: Secret) -> str:
        nonce = os.urandom(_NONCE_BYTES)
        sealed = nonce + self._aead.encrypt(nonce, secret.reveal().encode(), None)
        return _CIPHER_PREFIX + base64.b64encode(sealed).decode()

    def decrypt(self, stored: str) -> Secret:
        """Raises StoreError when the value was not encrypted with this key."""
        from cryptography.exceptions import InvalidTag

        try:
            if not stored.startswith(_CIPHER_PREFIX):
                raise ValueError("no enc:v1: prefix")
            sealed = base64.b64decode(stored.removeprefix(_CIPHER_PREFIX), validate=True)
            opened = self._aead.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], None)
            return Secret(opened.decode())
        except (InvalidTag, ValueError) as exc:
            raise StoreError(
                "a stored upstream key can't be decrypted: "
                "was the database written with another ENCRYPTION_KEY?"
            ) from exc
