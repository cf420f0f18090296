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
_WRAPPED_PREFIX = "key:v1:"
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


def may_be_legacy_token(token: bytes) -> bool:
    """Whether it has the form of the older program's: `sk-` and a UUID in unpadded base64url."""
    if len(token) != _LEGACY_LENGTH or not token.startswith(b"sk-"):
        return False
    # 22 characters hold four bits more than a UUID; its encoding leaves them zero.
    return token[-1:] in b"AQgw" and not token[3:].translate(None, _URL_SAFE)


_LEGACY_LENGTH = len(TOKEN_PREFIX) + 22
_URL_SAFE = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


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


def key_id(key: Secret) -> str:
    """Tells keys apart, and nothing about them: 256 random bits can't be searched for."""
    raw = base64.b64decode(key.reveal())
    return hashlib.sha256(b"llm-proxy key\x00" + raw).hexdigest()[:12]


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
        self.key = key
        self.key_id = key_id(key)
        self._aead = AESGCM(raw)

    def encrypt(self, secret: Secret) -> str:
        return _CIPHER_PREFIX + self._seal(secret, None)

    def decrypt(self, stored: str) -> Secret:
        """Raises StoreError when the value was not encrypted with this key."""
        opened = self._open(_CIPHER_PREFIX, stored, None)
        if opened is None:
            raise StoreError(
                "a stored upstream key can't be decrypted: "
                "was the database written with another ENCRYPTION_KEY?"
            )
        return opened

    def opens(self, stored: str) -> bool:
        return self._open(_CIPHER_PREFIX, stored, None) is not None

    def wrap(self, other: Cipher) -> str:
        """The other's key, for holders of this one; never to be taken for a value, nor a value for
        it, wherever somebody copies them to."""
        return _WRAPPED_PREFIX + self._seal(other.key, _WRAPPED_PREFIX.encode())

    def unwrap(self, stored: str) -> Cipher | None:
        """None when it was not this key that wrapped it."""
        key = self._open(_WRAPPED_PREFIX, stored, _WRAPPED_PREFIX.encode())
        return None if key is None else Cipher(key)

    def _seal(self, secret: Secret, purpose: bytes | None) -> str:
        nonce = os.urandom(_NONCE_BYTES)
        sealed = nonce + self._aead.encrypt(nonce, secret.reveal().encode(), purpose)
        return base64.b64encode(sealed).decode()

    def _open(self, prefix: str, stored: str, purpose: bytes | None) -> Secret | None:
        from cryptography.exceptions import InvalidTag

        if not stored.startswith(prefix):
            return None
        try:
            sealed = base64.b64decode(stored.removeprefix(prefix), validate=True)
            opened = self._aead.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], purpose)
            return Secret(opened.decode())
        except (InvalidTag, ValueError):
            return None


def is_encrypted(stored: str) -> bool:
    """By its form; which key opens it is another question."""
    return stored.startswith(_CIPHER_PREFIX)
