"""What workers write shards of a plain Zarr store with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from odc.geo.geobox import GeoBox

from glaciercube.store.base import Written, checked_rows
from glaciercube.store.encode import shard_bytes
from glaciercube.store.layout import StoreOptions, pack
from glaciercube.store.lease import Ticket
from glaciercube.store.ledger import ARRAYS, Mark, Piece, checksum, shard_key
from glaciercube.store.missing import Missing
from glaciercube.store.objects import Location, Objects, clear_errors

__all__ = ["ZarrHandle"]


@dataclass(frozen=True)
class ZarrHandle:
    """Writes shards of a plain Zarr store; see `glaciercube.store.base.Handle`.

    Attributes
    ----------
    location : Location
        The store.
    options : StoreOptions
        Its layout.
    geobox : GeoBox
        Its grid.
    rows : dict
        Label of each row -> its place.
    metadata : dict
        Array -> its metadata, with one row.
    ticket : Ticket
        The share in the driver's lease.
    """

    location: Location
    options: StoreOptions
    geobox: GeoBox
    rows: Mapping[str, int]
    metadata: Mapping[str, bytes]
    ticket: Ticket

    def write(
        self,
        times: npt.NDArray[np.datetime64],
        block: tuple[int, int],
        probability: npt.NDArray[np.float32],
        quality: npt.NDArray[np.uint8],
        keys: Sequence[str],
        missing: Sequence[Sequence[Missing]] = (),
    ) -> Written:
        """Write one shard of several dates; see `glaciercube.store.base.Handle.write`."""
        rows = checked_rows(
            self.options,
            self.geobox,
            self.rows,
            times=times,
            block=block,
            probability=probability,
            quality=quality,
            keys=keys,
        )
        objects = self.location.objects()
        marks = []
        for i, ((label, index), key) in enumerate(zip(rows, keys, strict=True)):
            # A driver that lost its lease must not overwrite what its successor writes.
            self.ticket.check()
            values = {"glacier_probability": pack(probability[i]), "quality": quality[i]}
            with clear_errors(self.location.path):
                pieces = tuple(self._put(objects, name, index, block, values[name]) for name in ARRAYS)
            marks.append(Mark(label, index, block, key, pieces, tuple(missing[i]) if missing else ()))
        return Written(tuple(marks))

    def _put(
        self, objects: Objects, name: str, index: int, block: tuple[int, int], values: npt.NDArray[np.uint8]
    ) -> Piece:
        y, x = self.options.slices(block, (self.geobox.shape[0], self.geobox.shape[1]))
        data, key = shard_bytes(self.metadata[name], y, x, block, values), shard_key(name, index, block)
        if data is None:
            objects.delete(key)
            return Piece(0, "")
        return Piece(len(data), checksum(data), objects.put(key, data))
