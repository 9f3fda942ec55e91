"""Coarser levels of the cube for viewers: groups ``levels/1`` (twice the pixel size), ``levels/2`` and so on.

A level's pixel is the mean of all valid probabilities below it, counted at the finest level and packed once, so that no
error adds up from level to level; a flag is set where any pixel below has it. A date's levels are built when all of its
shards are done. Once one of them is to be written anew, the date's levels are deleted, and are missing until they are
built again: that costs nothing like making every level right shard by shard, and they are built anew by dates anyway.

The base stays at the root, where everybody looks for it. `xarray.open_datatree` does not take a group whose ``x`` and
``y`` are not its parent's, and refuses a store that has levels: `xarray.open_groups` opens all of it.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import xarray as xr
import zarr
from affine import Affine
from odc.geo.geobox import GeoBox

from glaciercube.store.axis import labels_of
from glaciercube.store.layout import CONVENTIONS, FILL, StoreOptions, encoding, grid_attributes, template
from glaciercube.store.ledger import ARRAYS, shard_key

__all__ = ["GROUP", "MADE_FROM", "Levels", "delete_within", "fingerprint", "level_count", "level_geobox"]

GROUP: Final = "levels"
MADE_FROM: Final = f"{GROUP}/made_from"
_HASH_BYTES: Final = 32
# Dates at a time; more would not be faster, and memory grows with them.
_THREADS: Final = 4

# The registered Zarr convention.
_MULTISCALES: Final = {
    "uuid": "d35379db-88df-4056-af3a-620245f8e347",
    "name": "multiscales",
    "schema_url": "https://raw.githubusercontent.com/zarr-conventions/multiscales/refs/tags/v0.1/schema.json",
    "spec_url": "https://github.com/zarr-conventions/multiscales/blob/v0.1/README.md",
    "description": "Multiscale layout of zarr datasets",
}


def level_count(options: StoreOptions, shape: tuple[int, int]) -> int:
    """How many coarser levels there are: until one fits into a chunk."""
    count = 0
    # Four shards of a level make one of the next.
    while options.block % 2 == 0 and max(_ceil(shape, count)) > options.chunk:
        count += 1
    return count


def level_geobox(geobox: GeoBox, level: int) -> GeoBox:
    """The grid of a level: pixels 2, 4, 8... times as large from the same corner."""
    shape = _ceil((geobox.shape[0], geobox.shape[1]), level)
    return GeoBox(shape, geobox.affine @ Affine.scale(2**level), geobox.crs)


def fingerprint(parts: Iterable[str]) -> bytes:
    """What a date's levels are made from, in 32 bytes: of the keys and checksums of its shards."""
    return hashlib.sha256("\n".join(parts).encode()).digest()


class Levels:
    """The levels of a store, within it.

    Parameters
    ----------
    store : zarr store
        Where the cube is; open for writing.
    options : StoreOptions
        Its layout, which the levels share.
    geobox : GeoBox
        Its grid.
    """

    def __init__(self, store: Any, options: StoreOptions, geobox: GeoBox) -> None:
        self._store, self._options, self._geobox = store, options, geobox
        self._shape = (geobox.shape[0], geobox.shape[1])
        self.count = level_count(options, self._shape)

    def built(self) -> dict[int, bytes]:
        """Place of each date that has levels -> what they were made from."""
        try:
            made = np.asarray(zarr.open_array(self._store, path=MADE_FROM, mode="r")[:])
        except FileNotFoundError:
            return {}
        return {int(row): made[row].tobytes() for row in np.flatnonzero(made.any(axis=1))}

    def begin(self) -> None:
        """Make the levels' groups, or give them the rows that they lack; may be killed anywhere and done again."""
        labels = labels_of(self._store)
        try:
            made = zarr.open_array(self._store, path=MADE_FROM, mode="r+")
        except FileNotFoundError:
            self._create(np.array(labels, "datetime64[s]"))
            return
        if made.shape[0] == len(labels):
            return
        seconds = np.array(labels, "datetime64[s]").astype("int64")
        for level in range(1, self.count + 1):
            group = self._open(level)
            for name in (*ARRAYS, "time"):
                array = group[name]
                array.resize((len(labels), *array.shape[1:]))
            group["time"][:] = seconds
        made.resize((len(labels), _HASH_BYTES))

    def build(self, rows: Mapping[int, bytes]) -> Iterator[int]:
        """Build the levels of dates whose shards are all done, some at a time.

        Parameters
        ----------
        rows : mapping of int to bytes
            Place of each date -> what they are made from, recorded when they are whole.

        Yields
        ------
        int
            Place of a date whose levels are whole.
        """
        made = zarr.open_array(self._store, path=MADE_FROM, mode="r+")
        made.oindex[np.array(list(rows))] = np.zeros((len(rows), _HASH_BYTES), "uint8")
        base = zarr.open_group(self._store, mode="r", use_consolidated=False)
        arrays = {0: {name: base[name] for name in ARRAYS}}
        arrays.update({level: {name: self._open(level)[name] for name in ARRAYS} for level in range(1, self.count + 1)})
        blocks = list(np.ndindex(*self._blocks(self.count)))

        def whole(row: int) -> int:
            for y, x in blocks:
                self._cell(arrays, row, self.count, (y, x))
            return row

        # A date is as much memory as a shard of each level, several times over.
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="glaciercube-levels") as pool:
            pending = [pool.submit(whole, row) for row in rows]
            try:
                for future in as_completed(pending):
                    row = future.result()
                    # Here alone: the records of many dates lie in one chunk.
                    made[row] = np.frombuffer(rows[row], "uint8")
                    yield row
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def invalidate(self, rows: Iterable[int], delete: Callable[[Iterable[str]], None]) -> None:
        """Take dates out of the levels of which any shard is written anew.

        Of all that have room in the levels, and not only of what is recorded: that a date is not whole is recorded
        first, and a kill after that must not leave what is old.

        Parameters
        ----------
        rows : iterable of int
            Place of each date.
        delete : callable
            Deletes objects, where they are there, by their paths in the store; it is given each path once.
        """
        try:
            made = zarr.open_array(self._store, path=MADE_FROM, mode="r+")
        except FileNotFoundError:
            return
        some = sorted({row for row in rows if row < made.shape[0]})
        if recorded := sorted(self.built().keys() & some):
            made.oindex[np.array(recorded)] = np.zeros((len(recorded), _HASH_BYTES), "uint8")
        levels = range(1, self.count + 1)
        shards = ((row, level, block) for row in some for level in levels for block in np.ndindex(*self._blocks(level)))
        delete(shard_key(f"{GROUP}/{level}/{name}", row, (y, x)) for row, level, (y, x) in shards for name in ARRAYS)

    def _cell(
        self, arrays: Mapping[int, Mapping[str, Any]], row: int, level: int, block: tuple[int, int]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
        """Sum and number of packed probabilities below each pixel of a shard of a level, and their flags.

        Depth first: of each level one shard is held at a time. Packed values are whole numbers, and their sums exact.
        """
        shape = _ceil(self._shape, level)
        y, x = self._options.slices(block, shape)
        if level == 0:
            packed = np.asarray(arrays[0]["glacier_probability"][row, y, x])
            valid, flags = packed != FILL, np.asarray(arrays[0]["quality"][row, y, x])
            return np.where(valid, packed, 0).astype("int64"), valid.astype("int64"), flags
        size = (y.stop - y.start, x.stop - x.start)
        total, count, flags = np.zeros(size, "int64"), np.zeros(size, "int64"), np.zeros(size, "uint8")
        below, half = self._blocks(level - 1), self._options.block // 2
        for dy, dx in np.ndindex(2, 2):
            child = (2 * block[0] + dy, 2 * block[1] + dx)
            if child[0] >= below[0] or child[1] >= below[1]:
                continue
            totals, counts, bits = self._cell(arrays, row, level - 1, child)
            some = _fours(bits)
            here = np.s_[dy * half : dy * half + len(some), dx * half : dx * half + some.shape[2]]
            total[here], count[here] = _fours(totals).sum(axis=(1, 3)), _fours(counts).sum(axis=(1, 3))
            flags[here] = np.bitwise_or.reduce(np.bitwise_or.reduce(some, axis=3), axis=1)
        mean = np.rint(total / np.maximum(count, 1)).astype("uint8")
        arrays[level]["glacier_probability"][row, y, x] = np.where(count > 0, mean, FILL).astype("uint8")
        arrays[level]["quality"][row, y, x] = flags
        return total, count, flags

    def _blocks(self, level: int) -> tuple[int, int]:
        high, wide = (-(-size // self._options.block) for size in _ceil(self._shape, level))
        return high, wide

    def _open(self, level: int) -> Any:
        return zarr.open_group(self._store, path=f"{GROUP}/{level}", mode="r+", use_consolidated=False)

    def _create(self, times: npt.NDArray[np.datetime64]) -> None:
        for level in range(1, self.count + 1):
            geobox = level_geobox(self._geobox, level)
            empty = template(geobox, times, xr.Dataset(coords={"time": times}), {})
            names = [str(name) for name in empty.variables]
            empty.to_zarr(
                self._store,
                group=f"{GROUP}/{level}",
                mode="w",
                compute=False,
                zarr_format=3,
                consolidated=False,
                encoding=encoding(self._options, names),
            )
        root = zarr.open_group(self._store, mode="r+", use_consolidated=False)
        root.attrs.update({"zarr_conventions": [*CONVENTIONS, _MULTISCALES], "multiscales": self._layout()})
        # Last: without it none of this is there.
        root.create_array(
            MADE_FROM,
            shape=(len(times), _HASH_BYTES),
            chunks=(256, _HASH_BYTES),
            dtype="uint8",
            fill_value=0,
            dimension_names=("row", "byte"),
            overwrite=True,
        )

    def _layout(self) -> dict[str, Any]:
        layout: list[dict[str, Any]] = []
        for level in range(self.count + 1):
            grid = grid_attributes(level_geobox(self._geobox, level))
            place = {name: grid[name] for name in ("spatial:shape", "spatial:transform")}
            made = {"transform": {"scale": [1.0, 1.0]}}
            if level:
                made = {"derived_from": layout[-1]["asset"], "transform": {"scale": [2.0, 2.0]}}
            prefix = f"{GROUP}/{level}/" if level else ""
            layout.append({"asset": f"{prefix}{ARRAYS[0]}", **made, **place})
        return {"layout": layout, "resampling_method": "average"}


def delete_within(store: Any, keys: Iterable[str]) -> None:
    """Delete paths in a zarr store."""

    async def go() -> None:
        for key in keys:
            await store.delete(key)

    # On a thread of its own: in a notebook this one has an event loop already.
    with ThreadPoolExecutor(1, thread_name_prefix="glaciercube-delete") as pool:
        pool.submit(asyncio.run, go()).result()


def _ceil(shape: tuple[int, int], level: int) -> tuple[int, int]:
    high, wide = (-(-size // 2**level) for size in shape)
    return high, wide


def _fours(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Pixels (y, 2, x, 2) by twos; beyond an odd edge there are zeros."""
    padded = np.pad(values, [(0, size % 2) for size in values.shape])
    return padded.reshape(padded.shape[0] // 2, 2, padded.shape[1] // 2, 2)
