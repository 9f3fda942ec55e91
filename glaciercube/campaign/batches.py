"""Saying of many shards at once that they are done: a segment of the ledger or a commit for each would be too many."""

from __future__ import annotations

import threading
import time
from typing import ClassVar

from glaciercube.store import Store, Written

__all__ = ["Batch"]


class Batch:
    """What was written and is not committed yet; may be used from several threads.

    Parameters
    ----------
    store : Store
        Where to.

    Attributes
    ----------
    shards : int
        Marks that are committed at once, at the latest.
    seconds : float
        Age of the oldest of them at which they are.
    """

    shards: ClassVar[int] = 64
    seconds: ClassVar[float] = 15.0

    def __init__(self, store: Store) -> None:
        self._store, self._lock = store, threading.Lock()
        self._written: list[Written] = []
        self._since = 0.0

    def add(self, written: Written) -> None:
        """Take what was written, and commit if it is time.

        Raises
        ------
        StoreError
            If the store does not take it; all is kept for a later attempt.
        """
        with self._lock:
            if not self._written:
                self._since = time.monotonic()
            self._written.append(written)
            self._commit_if_due()

    def commit_if_due(self) -> None:
        """Commit, if it is time: to be called now and then while nothing is added."""
        with self._lock:
            self._commit_if_due()

    def commit(self) -> None:
        """Commit all that there is."""
        with self._lock:
            self._commit()

    def _commit_if_due(self) -> None:
        count = sum(len(written.marks) for written in self._written)
        if count and (count >= self.shards or time.monotonic() - self._since >= self.seconds):
            self._commit()

    def _commit(self) -> None:
        if self._written:
            # Left in place until it is said: an error here must not lose what a later attempt can still commit.
            self._store.commit(self._written)
            self._written = []
