"""The keys that stored values may be under: one, and while it is being rotated another.

Three rows of `meta` say which. `encryption_check` is a known value under the key in force. During a
rotation `encryption_next` holds that key under the one before, and `encryption_previous` the one
before under that key: whoever has either has both. So a server learns of a rotation from the
database, at the moment it meets a value that it can't read.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Final, Protocol

from llm_proxy.errors import StoreError
from llm_proxy.secrets import Cipher, Secret
from llm_proxy.store.meta import read_meta, write_meta
from llm_proxy.store.opening import Database

CHECK: Final = "encryption_check"
NEXT: Final = "encryption_next"
PREVIOUS: Final = "encryption_previous"

_KNOWN_VALUE: Final = Secret("llm-proxy")


class Transactions(Protocol):
    """Of the store; each is part of the one around it, if any."""

    def reading(self) -> AbstractContextManager[Database]: ...
    def writing(self) -> AbstractContextManager[Database]: ...


class Keyring:
    def __init__(self, store: Transactions, cipher: Cipher, *, database: str) -> None:
        """`database` is its name, for messages."""
        self._store = store
        self._name = database
        self._ciphers: tuple[Cipher, ...] = (cipher,)  # the first encrypts
        self.is_rotating = False  # when last looked at

    @property
    def current(self) -> Cipher:
        return self._ciphers[0]

    def check(self, *, may_store: bool) -> None:
        """Tells a wrong ENCRYPTION_KEY before anything is done with it. Raises StoreError."""
        with self._store.reading() as database:
            is_new = not read_meta(database, (CHECK,))
        if not is_new:
            self.learn()
        elif may_store:
            with self._store.writing() as database:
                if not read_meta(database, (CHECK,)):  # another process may have been first
                    write_meta(database, CHECK, known_value(self.current))
                self.learn()

    def learn(self) -> None:
        """Takes in the keys that the database holds for those who have one. Raises StoreError."""
        with self._store.reading() as database:
            rows = read_meta(database, (CHECK, NEXT, PREVIOUS))
        held = {cipher.key_id: cipher for cipher in self._ciphers}
        for cipher in self._ciphers:
            for name in (NEXT, PREVIOUS):
                if (other := cipher.unwrap(rows.get(name, ""))) is not None:
                    held.setdefault(other.key_id, other)
        check = rows.get(CHECK, "")
        current = next((cipher for cipher in held.values() if cipher.opens(check)), None)
        if current is None:
            raise StoreError(
                f"ENCRYPTION_KEY isn't the one that the database {self._name} was written with; "
                "set the key that was used before, or after a rotation the new one"
            )
        self._ciphers = (current, *(other for other in held.values() if other is not current))
        self.is_rotating = NEXT in rows

    def accept(self, cipher: Cipher) -> None:
        """Another key as what is held besides. Raises StoreError when it isn't the database's."""
        other = Keyring(self._store, cipher, database=self._name)
        other.learn()
        known = {held.key_id for held in other._ciphers}
        rest = (held for held in self._ciphers if held.key_id not in known)
        self._ciphers = (*other._ciphers, *rest)
        self.is_rotating = other.is_rotating

    def encrypt(self, secret: Secret) -> str:
        """Within the transaction that stores it: a rotation can't have missed it then."""
        with self._store.reading() as database:
            check = read_meta(database, (CHECK,)).get(CHECK)
        if check is not None and not self.current.opens(check):
            self.learn()
        return self.current.encrypt(secret)

    def decrypt(self, stored: str) -> Secret:
        """Raises StoreError when no key opens it."""
        if (cipher := self._opener(stored)) is None:
            self.learn()
            cipher = self._opener(stored) or self.current
        return cipher.decrypt(stored)

    def _opener(self, stored: str) -> Cipher | None:
        return next((cipher for cipher in self._ciphers if cipher.opens(stored)), None)


def known_value(cipher: Cipher) -> str:
    return cipher.encrypt(_KNOWN_VALUE)
