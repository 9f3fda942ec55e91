"""Whether what the ledger vouches for is there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Final

import numpy as np
import numpy.typing as npt

from glaciercube.store.base import Check
from glaciercube.store.ledger import ARRAYS, Entries, Mark, checksum
from glaciercube.store.objects import Objects
from glaciercube.store.shards import codes

__all__ = ["still_there"]

_READERS: Final = 16
# Shards of a listing that are looked at together.
_PAGE: Final = 65536


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
    wanted = codes(entries.column("row"), entries.column("y"), entries.column("x"))
    order = np.argsort(wanted)
    for name in ARRAYS:
        size, etag = np.zeros(len(entries), "int64"), np.zeros(len(entries), "int64")
        for keys, sizes, etags in _pages(objects, f"{name}/c"):
            where = np.searchsorted(wanted, keys, sorter=order)
            where = order[np.minimum(where, len(order) - 1)]
            known = wanted[where] == keys
            size[where[known]], etag[where[known]] = sizes[known], etags[known]
        sure &= size == entries.column(f"{name}_size")
        # An etag is a server's own: of a copy elsewhere it may differ, and reading tells.
        recorded = _hashes(text for batch in entries.table[f"{name}_etag"].chunks for text in batch.to_pylist())
        suspect |= (etag != recorded) & (etag != 0) & (recorded != 0)
    return sure & ~suspect, sure & suspect


def _pages(
    objects: Objects, prefix: str
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Code, size and hash of the etag of the shards that are there, many at a time."""
    listing = objects.list(prefix)
    while page := list(islice(listing, _PAGE)):
        split = [(entry.key.rsplit("/", 3)[1:], entry) for entry in page]
        shards = [(parts, entry) for parts, entry in split if len(parts) == 3 and all(map(str.isdigit, parts))]
        if shards:
            place = np.array([parts for parts, _ in shards]).astype("int64")
            sizes = np.array([entry.size for _, entry in shards], "int64")
            yield codes(place[:, 0], place[:, 1], place[:, 2]), sizes, _hashes(entry.etag for _, entry in shards)


def _hashes(texts: Iterable[str | None]) -> npt.NDArray[np.int64]:
    """A number for each text, to be compared within this process; 0 for none."""
    return np.fromiter((hash(text) if text else 0 for text in texts), np.int64)


def _reads_as_written(objects: Objects, mark: Mark) -> bool:
    return all(_sha256(objects, key) == piece.sha256 for key, piece in mark.files.items())


def _sha256(objects: Objects, key: str) -> str:
    try:
        return checksum(objects.get(key))
    except FileNotFoundError:
        return ""
