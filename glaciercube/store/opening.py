"""Opening a store, of whichever kind: to write, to see what is done, or to analyse."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr
import zarr
from odc.geo.geobox import GeoBox

from glaciercube.errors import StoreError
from glaciercube.store.base import Store
from glaciercube.store.icemarks import missing_in as missing_in_icechunk
from glaciercube.store.icerepo import readonly_store, runs_of
from glaciercube.store.icestore import IcechunkStore
from glaciercube.store.layout import Kind, StoreOptions
from glaciercube.store.ledger import ARRAYS
from glaciercube.store.levels import GROUP, MADE_FROM
from glaciercube.store.missing import MISSING_COLUMNS
from glaciercube.store.objects import Location, clear_errors, first_line
from glaciercube.store.records import ICE_RECORDS, ZARR_RECORDS, Records
from glaciercube.store.zarrstore import ZarrStore, missing_in

__all__ = ["kind_of", "missing_scenes", "open_reader", "open_records", "open_store", "open_writer", "runs"]


def open_writer(
    options: StoreOptions,
    geobox: GeoBox,
    times: npt.NDArray[np.datetime64],
    extra: xr.Dataset,
    attrs: Mapping[str, Any],
    *,
    takeover: bool = False,
) -> Store:
    """Make a store, or open it and add the rows that it lacks; it is then this writer's until it is closed.

    Parameters
    ----------
    options : StoreOptions
        Path, kind and layout.
    geobox : GeoBox
        The grid; an existing store must have the same.
    times : (time) datetime64
        Rows that must exist.
    extra : Dataset (time)
        Variables and coordinates per row.
    attrs : mapping
        Global attributes of a new store.
    takeover : bool
        Take it from a writer that has died on another machine. Of one that died on this machine it is taken anyway.

    Raises
    ------
    GridMismatchError
        If a store of another grid or layout is there.
    StoreError
        If the path holds something else, cannot be written, or somebody else is writing there; it says who.
    """
    kind = kind_of(Location.here(options.path, options.endpoint), options.kind)
    make = ZarrStore.create_or_open if kind == "zarr" else IcechunkStore.create_or_open
    return make(options, geobox, times, extra, attrs, takeover=takeover)


def open_reader(options: StoreOptions, geobox: GeoBox) -> Store | None:
    """Open a store to see what is done; None if there is none yet.

    Raises
    ------
    GridMismatchError
        If it is of another grid or layout.
    StoreError
        If the path holds something else.
    """
    if kind_of(Location.here(options.path, options.endpoint), options.kind) == "zarr":
        return ZarrStore.open(options, geobox)
    return IcechunkStore.open(options, geobox)


def open_records(options: StoreOptions) -> Records:
    """What runs into a store left to later ones; empty where there is no store yet.

    Raises
    ------
    StoreError
        If the path holds something else.
    """
    location = Location.here(options.path, options.endpoint)
    return Records(location, ZARR_RECORDS if kind_of(location, options.kind) == "zarr" else ICE_RECORDS)


def open_store(
    path: str | os.PathLike[str], *, as_of: str | datetime | None = None, level: int = 0, endpoint: str = ""
) -> xr.Dataset:
    """Open a probability cube for analysis.

    Parameters
    ----------
    path : str or Path
        A folder, or ``s3://bucket/prefix``.
    as_of : str, datetime or None
        Icechunk only: as it was after a run (a name from `runs`), at a snapshot, or at a time.
    level : int
        A coarser level, of pixels 2, 4, 8... times as large; missing where levels were not built (``run: {levels:
        true}``). 0 for the cube itself.
    endpoint : str
        Address of an S3 server that is not Amazon's.

    Returns
    -------
    Dataset
        As ``xarray.open_zarr`` gives it, rows in order of time: ``glacier_probability`` (time, y, x) float64 in 0 to 1
        (xarray's decoding of packed uint8), NaN where missing; ``quality`` (time, y, x) uint8 flags, 0 never processed.

    Raises
    ------
    StoreError
        If it is not a store that glaciercube wrote, or keeps no history.
    """
    location = Location.here(path, endpoint)
    try:
        with clear_errors(location.path, reading=True):
            dataset = _open(location, as_of, f"{GROUP}/{level}" if level else None)
    except (StoreError, ValueError, KeyError, TypeError) as error:
        if level and open_store(path, as_of=as_of, endpoint=endpoint) is not None:
            raise StoreError(
                f"{location.path} has no level {level}", "build levels (run: {levels: true}), or open a finer one"
            ) from None
        if isinstance(error, StoreError):
            raise
        raise StoreError(
            f"{location.path} cannot be opened as a Zarr store ({first_line(error)})", "check the path"
        ) from None
    missing = [name for name in ARRAYS if name not in dataset]
    if missing:
        raise StoreError(f"{location.path} has no {' and no '.join(missing)}", "give a store that glaciercube wrote")
    if dataset.indexes["time"].is_monotonic_increasing:
        # Sorting what is sorted would make a task for each of a million chunks.
        return dataset
    ordered: xr.Dataset = dataset.sortby("time")
    return ordered


def runs(path: str | os.PathLike[str], *, endpoint: str = "") -> pd.Series[pd.Timestamp]:
    """The runs that an Icechunk repository keeps: name -> when it last committed (UTC), oldest first.

    Raises
    ------
    StoreError
        If there is no store, or it is plain Zarr, which keeps no history.
    """
    location = Location.here(path, endpoint)
    if kind_of(location) == "zarr":
        raise _no_history(location.path)
    found = runs_of(location)
    return pd.Series(
        list(found.values()), index=pd.Index(list(found), name="run"), name="time", dtype="datetime64[ns, UTC]"
    )


def missing_scenes(path: str | os.PathLike[str], *, endpoint: str = "") -> pd.DataFrame:
    """The scenes that shards of a store were made without.

    Where nothing else was seen of a pixel that day, its ``glacier_probability`` is missing or rests on what the flags
    of ``quality`` say; no value was made up. ``run: {retry_missing: true}`` does these shards again.

    Parameters
    ----------
    path : str or Path
        The store.
    endpoint : str
        Address of an S3 server that is not Amazon's.

    Returns
    -------
    DataFrame
        A row per shard and scene: ``time`` (row of the store), ``block_y`` and ``block_x`` (shard), ``scene``, ``band``
        (the first that could not be read), ``failure`` (``permanent`` or ``authorisation``) and ``reason``.

    Raises
    ------
    StoreError
        If there is no store.
    """
    location = Location.here(path, endpoint)
    found = [
        (pd.Timestamp(row), *block, each.scene, each.band, each.failure, each.reason)
        for row, block, each in (missing_in if kind_of(location) == "zarr" else missing_in_icechunk)(location)
    ]
    frame = pd.DataFrame(found, columns=list(MISSING_COLUMNS)).astype({"time": "datetime64[s]"})
    return frame.sort_values(list(MISSING_COLUMNS[:4]), ignore_index=True)


def _open(location: Location, as_of: str | datetime | None, group: str | None) -> xr.Dataset:
    found: xr.Dataset
    if kind_of(location) == "icechunk":
        past = readonly_store(location, as_of)
        _check_levels(past, group)
        found = xr.open_zarr(past, group=group, decode_coords="all", consolidated=False, zarr_format=3)
    elif as_of is not None:
        raise _no_history(location.path)
    else:
        source = location.objects().zarr(read_only=True) if location.scheme else location.folder
        _check_levels(source, group)
        found = xr.open_zarr(source, group=group, decode_coords="all", consolidated=group is None)
    return found


def _check_levels(source: Any, group: str | None) -> None:
    """A run that is killed while it makes levels leaves groups without all of their variables."""
    try:
        if group is not None:
            zarr.open_array(source, path=MADE_FROM, mode="r")
    except FileNotFoundError:
        raise KeyError(group) from None


def kind_of(location: Location, wanted: Kind = "auto") -> Literal["zarr", "icechunk"]:
    """What is there, or else what is wanted.

    Raises
    ------
    StoreError
        If something else is there than is wanted.
    """
    there = _there(location)
    if there and wanted not in {"auto", there}:
        raise StoreError(
            f"{location.path} is of kind {there}, and {wanted} is asked for", "choose another path or kind"
        )
    if there:
        return there
    if wanted != "auto":
        return wanted
    return "icechunk" if location.path.rstrip("/").endswith(".icechunk") else "zarr"


def _there(location: Location) -> Literal["zarr", "icechunk"] | None:
    objects = location.objects()
    with clear_errors(location.path, reading=True):
        try:
            objects.get("zarr.json")
        except FileNotFoundError:
            # Icechunk 1 keeps branches in `refs`, Icechunk 2 all of it in `repo`.
            found = any(True for folder in ("refs", "snapshots") for _ in objects.list(folder))
            return "icechunk" if found else None
        except NotADirectoryError:
            return None
    return "zarr"


def _no_history(path: str) -> StoreError:
    return StoreError(f"{path} is plain Zarr and keeps no history", "make stores with `kind: icechunk` for that")
