"""What all kinds of store have in common inside: the grid they are of, their rows, and how those came about.

A row's time is written last, and a row without one does not exist: whatever kills a writer, the next one finds rows
that are whole, or none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import xarray as xr
import zarr
from odc.geo.geobox import GeoBox

from glaciercube.errors import GridMismatchError, StoreError
from glaciercube.store.base import row_label
from glaciercube.store.layout import NO_TIME, StoreOptions, grid_attributes
from glaciercube.store.objects import first_line

__all__ = [
    "PLANNED",
    "PROVENANCE",
    "UNFINISHED",
    "add_rows",
    "check_same",
    "describe",
    "labels_of",
    "provenance_of",
    "with_provenance",
]

PROVENANCE: Final = "provenance"
# What is said only as long as it is so: scenes that dates are to have, and that shards of another model are there.
PLANNED: Final = "scenes_planned"
UNFINISHED: Final = "unfinished"
# Provenance by row or by scene, and what all rows of a store have in common.
_ACCUMULATED: Final = ("scenes", "reflectance_offsets", "radar_passes")
_MADE_BY: Final = ("model", "model_hash", "compose", "modalities", "reflectance")


def check_same(store: Any, path: str, geobox: GeoBox, options: StoreOptions) -> None:
    """Refuse what is no probability store, or one of another grid or layout.

    Raises
    ------
    GridMismatchError
        If the grid or the shards differ.
    StoreError
        If it is something else.
    """
    try:
        root = zarr.open_group(store, mode="r")
        known = dict(root.attrs)
        array = root["glacier_probability"]
    except (FileNotFoundError, KeyError, ValueError, TypeError) as error:
        raise StoreError(
            f"{path} exists and is not a probability store ({first_line(error)})", "choose another path"
        ) from None
    wanted = grid_attributes(geobox)
    for name, value in wanted.items():
        if known.get(name) != value:
            raise GridMismatchError(
                f"the store {path} was made with another grid ({name} is {known.get(name)} there and {value} here)",
                "use the region and resolution that it was made with, or choose another path",
            )
    shards = getattr(array, "shards", None) or getattr(array, "chunks", None)
    if shards is None or shards[1:] != (options.block, options.block):
        raise GridMismatchError(
            f"the store {path} has shards of {shards} and this run wants {options.block} pixels",
            "keep the shard size that it was made with, or choose another path",
        )


def labels_of(store: Any) -> list[str]:
    """Labels of the rows, up to the first whose time was never written."""
    seconds = np.asarray(zarr.open_array(store, path="time", mode="r")[:])
    unfinished = np.flatnonzero(seconds == NO_TIME)
    return [row_label(time) for time in seconds[: unfinished[0] if unfinished.size else None].astype("datetime64[s]")]


def add_rows(store: Any, times: npt.NDArray[np.datetime64], extra: xr.Dataset) -> None:
    """Add the rows that are missing, and write the planned rows' own values anew where they differ.

    May be killed anywhere and done again.
    """
    root = zarr.open_group(store, mode="r+", use_consolidated=False)
    known = labels_of(store)
    labels = [row_label(time) for time in times]
    # Rows are added in order of arrival, so that no old shard is touched; `open_store` sorts.
    every = known + [label for label in labels if label not in known]
    rows = np.array([every.index(label) for label in labels])
    for name in map(str, extra.variables):
        if name not in root and extra[name].dims == ("time",) and name != "time":
            _add_variable(root, name, extra[name], len(known))
    for name, array in root.arrays():
        dims = getattr(array.metadata, "dimension_names", None) or ()
        if name != "time" and dims[:1] == ("time",):
            _fit(array, len(every))
            _set(array, rows, extra.variables.get(name))
    axis = zarr.open_array(store, path="time", mode="r+")
    _fit(axis, len(every))
    if len(every) > len(known):
        axis[len(known) :] = np.array(every[len(known) :], "datetime64[s]").astype("int64")


def _fit(array: zarr.Array[Any], length: int) -> None:
    if array.shape[0] != length:
        array.resize((length, *array.shape[1:]))


def _set(array: zarr.Array[Any], rows: npt.NDArray[np.int64], variable: xr.Variable | None) -> None:
    if variable is None or not len(rows):
        return
    values = variable.to_numpy()
    values = values.astype("datetime64[s]").astype("int64") if values.dtype.kind == "M" else values
    if not np.array_equal(np.asarray(array.oindex[rows]), values, equal_nan=values.dtype.kind == "f"):
        array.oindex[rows] = values


def _add_variable(root: zarr.Group, name: str, variable: xr.DataArray, length: int) -> None:
    array = root.create_array(
        name, shape=(length,), chunks=(4096,), dtype="float32", fill_value=np.nan, dimension_names=("time",)
    )
    array.attrs.update({str(key): value for key, value in variable.attrs.items()})


def with_provenance(empty: xr.Dataset) -> xr.Dataset:
    """The template with the scalar variable whose attributes are the provenance."""
    return empty.assign_coords({PROVENANCE: ((), np.int32(0), {"long_name": "how this cube was made"})})


def describe(store: Any, path: str, provenance: Mapping[str, Any], source: str) -> None:
    """Add to the provenance what the planned rows were made of and with.

    What holds for a while (`PLANNED`, `UNFINISHED`) goes with the first description without it, but for other rows'.

    Raises
    ------
    StoreError
        If rows that this run does not redo were made in another way.
    """
    node = zarr.open_array(store, path=PROVENANCE, mode="r+")
    known = dict(node.attrs)
    kept = [row for row in _mapping(known.get("scenes")) if row not in provenance["scenes"]]
    changed = [key for key in _MADE_BY if key in known and known[key] != provenance.get(key)]
    if kept and changed:
        key = changed[0]
        raise StoreError(
            f"the store {path} holds {len(kept)} dates, such as {kept[0]}, made with "
            f"{key.removesuffix('_hash')} {known[key]}, and this run has {provenance.get(key)}",
            "choose another path, keep to what the store was made with, or run over all of its dates",
        )
    merged = {key: {**_mapping(known.get(key)), **provenance[key]} for key in _ACCUMULATED if key in provenance}
    waiting = {row: ids for row, ids in _mapping(known.pop(PLANNED, None)).items() if row in kept}
    merged |= {PLANNED: planned} if (planned := {**waiting, **_mapping(provenance.get(PLANNED))}) else {}
    unfinished = known.pop(UNFINISHED, None)
    if kept and unfinished and UNFINISHED not in provenance:
        known[UNFINISHED] = unfinished
    node.attrs.put({**known, **provenance, **merged})
    zarr.open_group(store, mode="r+", use_consolidated=False).attrs["source"] = source


def provenance_of(dataset: xr.Dataset) -> dict[str, Any]:
    """What a store, or a prediction in memory, says of how it was made; empty if nothing."""
    variable = dataset.coords.get(PROVENANCE)
    made = dataset.attrs if variable is None else variable.attrs
    return {str(key): value for key, value in made.items()}


def _mapping(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}
