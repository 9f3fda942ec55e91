"""Clearing away what killed runs left behind, and nobody will ever read."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

from glaciercube.store import icestore, zarrmake
from glaciercube.store.icerepo import no_store, tidied
from glaciercube.store.lease import Lease
from glaciercube.store.objects import Location, clear_errors
from glaciercube.store.opening import kind_of

__all__ = ["Tidied", "tidy"]

# Clocks of machines and servers may disagree by less.
_AGE: Final = timedelta(hours=1)


@dataclass(frozen=True)
class Tidied:
    """What was cleared away.

    Attributes
    ----------
    objects, bytes : int
        Files or objects, and their size.
    """

    objects: int
    bytes: int


def tidy(path: str | os.PathLike[str], *, endpoint: str = "", age: timedelta = _AGE) -> Tidied:
    """Clear away what killed runs left behind: files that were not whole yet, and what Icechunk never committed.

    A worker that is killed leaves chunks in an Icechunk repository that no commit refers to, and on a disk files named
    ``.partial``. Neither is ever read. Whatever a run, branch or tag refers to is kept.

    Parameters
    ----------
    path : str or Path
        The store.
    endpoint : str
        Address of an S3 server that is not Amazon's.
    age : timedelta
        What is younger is left.

    Raises
    ------
    StoreError
        If there is no store, or somebody is writing to it.
    """
    location = Location.here(path, endpoint)
    icechunk = kind_of(location) == "icechunk"
    with clear_errors(location.path):
        if not icechunk and not zarrmake.is_there(location.objects(), location.path):
            raise no_store(location.path)
    # Nobody else may be at it: what is not committed yet looks like what never will be.
    lease = Lease(location, icestore.LEASE if icechunk else zarrmake.LEASE)
    try:
        found = tidied(location, age) if icechunk else (0, 0)
        with clear_errors(location.path):
            torn = [] if location.scheme else _torn(location.folder, time.time() - age.total_seconds())
    finally:
        lease.release()
    return Tidied(found[0] + len(torn), found[1] + sum(torn))


def _torn(folder: Path, before: float) -> list[int]:
    """Delete files that never became whole; the size of each."""
    sizes = []
    for file in folder.rglob("*.partial"):
        with suppress(FileNotFoundError):
            known = file.stat()
            if known.st_mtime <= before:
                file.unlink()
                sizes.append(known.st_size)
    return sizes
