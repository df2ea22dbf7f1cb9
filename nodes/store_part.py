"""What families keep in the pack's store and can delete without a trace, whatever comes in between."""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ..training.interfaces import AttuneError
from .store import Store

log = logging.getLogger("attune")


class StorePart:
    """A part of the store. Before it is first used, what a killed process began to delete is carried through.

    Args:
        store: the pack's. Nothing is opened before it is needed.
        thing: what is deleted from it, in words, for the log.
    """

    def __init__(self, store: Store, thing: str) -> None:
        self.store, self._thing = store, thing
        self._begun = False
        self._beginning = threading.Lock()

    def _finish(self) -> str:
        """Carry through every deletion that was begun.

        Returns:
            Why bytes of what was deleted are still there, in words; "" = none are.
        """
        raise NotImplementedError

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        self._begin()
        with self.store.reading() as connection:
            yield connection

    @contextmanager
    def _snapshot(self) -> Iterator[sqlite3.Connection]:
        """For several queries that must tell of one moment."""
        with self._reading() as connection:
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                connection.execute("ROLLBACK")

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        self._begin()
        with self.store.writing() as connection:
            yield connection

    def _begin(self) -> None:
        with self._beginning:
            if self._begun:
                return
            self._begun = True
            try:
                self._finish()
            except AttuneError as error:
                log.warning("Attune: a %s could not be deleted to the end: %s", self._thing, error)
