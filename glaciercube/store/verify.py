"""Whether what the ledger vouches for is there."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from glaciercube.store.base import Check
from glaciercube.store.ledger import ARRAYS, Entries, Mark, checksum
from glaciercube.store.objects import Objects

__all__ = ["still_there"]

_READERS = 16
# Bits of a shard's place on the time axis, and of its row and column, in one number.
_TIME, _SIDE = 22, 20


def still_there(objects: Objects, entries: Entries, check: Check) -> Entries:
    """Those entries whose shards are as they were written.

    Parameters
    ----------
    objects : Objects
        The store.
    entries : Entries
        From `Ledger.entries`.
    check : {"none", "size", "sha256"}
        How they are held against it. Entries that a damaged segment may have withdrawn are always read.
    """
    sure = np.full(len(entries), check == "none")
    suspect = np.full(len(entries), check == "sha256")
    if check == "size" and len(entries):
        sure, suspect = _listed(objects, entries)
    suspect |= entries.doubtful & (sure | suspect)
    sure &= ~suspect
    if suspect.any():
        with ThreadPoolExecutor(_READERS) as pool:
            sure[suspect] = list(pool.map(lambda mark: _reads_as_written(objects, mark), entries.keep(suspect)))
    return entries.keep(sure)


def _listed(objects: Objects, entries: Entries) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Entries whose shards are listed with their sizes and etags, and those whose etags alone differ."""
    sure, suspect = np.full(len(entries), True), np.full(len(entries), False)
    wanted = _code(entries.column("row"), entries.column("y"), entries.column("x"))
    order = np.argsort(wanted)
    for name in ARRAYS:
        size, etag = np.zeros(len(entries), "int64"), np.full(len(entries), None, object)
        for keys, sizes, etags in _pages(objects, f"{name}/c"):
            where = np.searchsorted(wanted, keys, sorter=order)
            where = order[np.minimum(where, len(order) - 1)]
            known = wanted[where] == keys
            size[where[known]], etag[where[known]] = sizes[known], etags[known]
        sure &= size == entries.column(f"{name}_size")
        # An etag is a server's own: of a copy elsewhere it may differ, and reading tells.
        recorded = entries.column(f"{name}_etag")
        both = np.array([one is not None and other is not None for one, other in zip(etag, recorded, strict=True)])
        suspect |= both & (etag != recorded)
    return sure & ~suspect, sure & suspect


def _pages(
    objects: Objects, prefix: str
) -> list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.object_]]]:
    places, sizes, etags = [], [], []
    for entry in objects.list(prefix):
        parts = entry.key.rsplit("/", 3)[1:]
        if len(parts) == 3 and all(part.isdigit() for part in parts):
            places.append([int(part) for part in parts])
            sizes.append(entry.size)
            etags.append(entry.etag or None)
    if not places:
        return []
    place = np.array(places, "int64")
    return [(_code(place[:, 0], place[:, 1], place[:, 2]), np.array(sizes, "int64"), np.array(etags, object))]


def _code(row: npt.NDArray[np.int64], y: npt.NDArray[np.int64], x: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    code: npt.NDArray[np.int64] = (row.astype("int64") << (2 * _SIDE)) | (y.astype("int64") << _SIDE) | x
    return code


def _reads_as_written(objects: Objects, mark: Mark) -> bool:
    return all(_sha256(objects, key) == piece.sha256 for key, piece in mark.files.items())


def _sha256(objects: Objects, key: str) -> str:
    try:
        return checksum(objects.get(key))
    except FileNotFoundError:
        return ""
