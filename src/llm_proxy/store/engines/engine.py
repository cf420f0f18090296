"""How a database of one kind is reached, and what its failures mean."""

from __future__ import annotations

import abc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

import peewee

from llm_proxy.errors import StoreError
from llm_proxy.store.engines.connection import Database


class Engine(abc.ABC):
    shown: str  # in messages: a path, or a URL without its password
    is_shared: ClassVar[bool]  # by many connections that write and read at the same time
    driver_errors: ClassVar[tuple[type[Exception], ...]]

    @abc.abstractmethod
    def connect(self, *, create: bool = False) -> Database:
        """Without `create` it must be an llm-proxy database already. Raises StoreError."""

    def check(self, database: Database) -> None:
        """Raises StoreError when the data are damaged, as far as that can be told quickly."""
        return

    def settle(self, database: Database) -> None:
        """What is left to do once the schema is there."""
        return

    @abc.abstractmethod
    def failure_of(self, exc: Exception) -> StoreError:
        """One sentence that names the database and what to do; never its password."""

    @property
    def _errors(self) -> tuple[type[Exception], ...]:
        return (peewee.PeeweeException, *self.driver_errors)

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Raises StoreUnavailable or StoreError for whatever the database raises inside."""
        try:
            yield
        except self._errors as exc:
            raise self.failure_of(exc) from exc
