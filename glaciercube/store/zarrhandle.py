"""What workers write shards of a plain Zarr store with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from glaciercube.store.base import Handle, Written
from glaciercube.store.encode import shard_bytes
from glaciercube.store.layout import pack
from glaciercube.store.lease import Ticket
from glaciercube.store.ledger import ARRAYS, Mark, Piece, checksum, shard_key
from glaciercube.store.objects import Location, Objects, clear_errors

__all__ = ["ZarrHandle"]


@dataclass(frozen=True)
class ZarrHandle(Handle):
    """Writes shards of a plain Zarr store; see `glaciercube.store.base.Handle`.

    Attributes
    ----------
    options, geobox, rows
        As of every handle.
    location : Location
        The store.
    metadata : dict
        Array -> its metadata, with one row.
    ticket : Ticket
        The share in the driver's lease.
    """

    location: Location
    metadata: Mapping[str, bytes]
    ticket: Ticket

    def _write(
        self, marks: tuple[Mark, ...], probability: npt.NDArray[np.float32], quality: npt.NDArray[np.uint8]
    ) -> Written:
        objects, written = self.location.objects(), []
        for i, mark in enumerate(marks):
            # A driver that lost its lease must not overwrite what its successor writes.
            self.ticket.check()
            values = {"glacier_probability": pack(probability[i]), "quality": quality[i]}
            with clear_errors(self.location.path):
                pieces = tuple(self._put(objects, name, mark.index, mark.block, values[name]) for name in ARRAYS)
            written.append(replace(mark, pieces=pieces))
        return Written(tuple(written))

    def _put(
        self, objects: Objects, name: str, index: int, block: tuple[int, int], values: npt.NDArray[np.uint8]
    ) -> Piece:
        y, x = self.options.slices(block, (self.geobox.shape[0], self.geobox.shape[1]))
        data, key = shard_bytes(self.metadata[name], y, x, block, values), shard_key(name, index, block)
        if data is None:
            objects.delete(key)
            return Piece(0, "")
        return Piece(len(data), checksum(data), objects.put(key, data))
