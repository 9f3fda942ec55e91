"""Marks of an Icechunk store: an array beside the data, written in the same commit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import xarray as xr
import zarr

from glaciercube.store.icerepo import BRANCH, readonly_store
from glaciercube.store.layout import StoreOptions, encoding
from glaciercube.store.ledger import Mark
from glaciercube.store.missing import Missing
from glaciercube.store.objects import Location

__all__ = ["Done", "create", "is_made", "keys_of", "lengthen", "missing_in", "missing_of", "record"]

# A group of its own: it holds no variable of the cube.
_MARKS: Final = "ledger/key"
_KEY_BYTES: Final = 64


class Done:
    """What a store holds; see `glaciercube.store.base.Done`."""

    def __init__(self, labels: list[str], keys: npt.NDArray[np.uint8], chosen: npt.NDArray[np.bool_]) -> None:
        self._labels, self._keys, self._chosen = labels, keys, chosen

    def __iter__(self) -> Iterator[tuple[str, tuple[int, int], str]]:
        for row, y, x in np.argwhere(self._chosen).tolist():
            yield self._labels[row], (y, x), bytes(self._keys[row, y, x]).rstrip(b"\0").decode()

    def __len__(self) -> int:
        return int(self._chosen.sum())


def is_made(repository: Any) -> bool:
    """True if the cube was committed; a repository that was only begun has no group."""
    try:
        zarr.open_array(repository.readonly_session(BRANCH).store, path=_MARKS, mode="r")
    except FileNotFoundError:
        return False
    return True


def create(store: Any, empty: xr.Dataset, options: StoreOptions) -> None:
    """Write the empty cube and its marks, none of which is set."""
    names = [str(name) for name in empty.variables]
    empty.to_zarr(store, compute=False, zarr_format=3, consolidated=False, encoding=encoding(options, names))
    length, *shape = empty["glacier_probability"].shape
    blocks = tuple(-(-size // options.block) for size in shape)
    zarr.open_group(store, mode="r+").create_array(
        _MARKS,
        shape=(length, *blocks, _KEY_BYTES),
        chunks=(1, *blocks, _KEY_BYTES),
        dtype="uint8",
        fill_value=0,
        dimension_names=("row", "block_y", "block_x", "byte"),
        attributes={"missing": {}},
    )


def lengthen(store: Any) -> None:
    """Give the marks as many rows as there are times."""
    marks = zarr.open_array(store, path=_MARKS, mode="r+")
    length = zarr.open_array(store, path="time", mode="r").shape[0]
    if marks.shape[0] != length:
        marks.resize((length, *marks.shape[1:]))


def keys_of(store: Any) -> npt.NDArray[np.uint8]:
    """The marks: (row, block row, block column, byte); nothing but zeros where there is none."""
    return np.asarray(zarr.open_array(store, path=_MARKS, mode="r")[:])


def record(store: Any, marks: Iterable[Mark]) -> list[tuple[int, tuple[int, int]]]:
    """Write marks beside the data; row and block of those that there were before."""
    array = zarr.open_array(store, path=_MARKS, mode="r+")
    lacking: dict[str, Any] = dict(array.attrs["missing"])  # type: ignore[arg-type]
    known = dict(lacking)
    rows: dict[int, list[Mark]] = {}
    anew = []
    for mark in marks:
        rows.setdefault(mark.index, []).append(mark)
    for index, some in rows.items():
        keys = np.array(array[index])
        for mark in some:
            if keys[mark.block].any():
                anew.append((index, mark.block))
            keys[mark.block] = np.frombuffer(mark.key.encode().ljust(_KEY_BYTES, b"\0"), "uint8")
            place = f"{mark.row} {mark.block[0]} {mark.block[1]}"
            lacking.pop(place, None)
            if mark.missing:
                lacking[place] = [asdict(each) for each in mark.missing]
        array[index] = keys
    if lacking != known:
        array.attrs["missing"] = lacking
    return anew


def missing_in(location: Location) -> Iterator[tuple[str, tuple[int, int], Missing]]:
    """Scenes that shards were made without: row, shard, and which and why.

    Raises
    ------
    StoreError
        If there is no store.
    """
    return missing_of(readonly_store(location))


def missing_of(store: Any) -> Iterator[tuple[str, tuple[int, int], Missing]]:
    """Scenes that shards were made without."""
    known: Any = zarr.open_array(store, path=_MARKS, mode="r").attrs["missing"]
    for place, every in known.items():
        row, y, x = place.split(" ")
        yield from ((row, (int(y), int(x)), Missing(**each)) for each in every)
