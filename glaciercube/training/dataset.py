"""A chip as a dataset that describes itself: units, flags, and where it lies, by the CF conventions."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from odc.geo.geobox import GeoBox

from glaciercube.models.chips import UNKNOWN, Chip
from glaciercube.models.contract import VARIABLES

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

__all__ = ["dataset_of", "grid_of"]


def grid_of(chip: Chip) -> GeoBox | None:
    """Grid of a chip, if its attributes ``crs`` and ``transform`` say where it lies."""
    if not {"crs", "transform"} <= set(chip.attributes):
        return None
    from affine import Affine

    return GeoBox(chip.label.shape[1:], Affine(*chip.attributes["transform"]), chip.attributes["crs"])


def dataset_of(chip: Chip, said: Mapping[str, Any]) -> xr.Dataset:
    """Write a chip as a dataset.

    Parameters
    ----------
    chip : Chip
        Any.
    said : mapping
        Attributes of the dataset.

    Returns
    -------
    Dataset
        Variables as they are; ``label`` with flags, ``weight``, ``sure``, ``glaciers``; ``time``, ``y``, ``x``, and
        ``spatial_ref`` where the chip says where it lies.
    """
    grid = grid_of(chip)
    mapping: dict[Hashable, Any] = {} if grid is None else {"grid_mapping": "spatial_ref"}
    found: dict[str, xr.DataArray] = {}
    for name, values in chip.variables.items():
        attrs = {"units": VARIABLES.get(name, "unknown"), "long_name": name.replace("_", " ")}
        dims = ("time", "y", "x") if values.ndim == 3 else ("y", "x")
        found[name] = xr.DataArray(values, dims=dims, attrs=attrs | mapping)
    meanings = [re.sub(r"[^A-Za-z0-9_.+-]+", "_", name) for name in chip.labels]
    flags = np.array([*range(len(meanings)), UNKNOWN], "uint8")
    label = {"long_name": "label", "flag_values": flags, "flag_meanings": " ".join([*meanings, "unknown"])}
    found["label"] = xr.DataArray(chip.label, dims=("time", "y", "x"), attrs=label | mapping)
    weight = {"long_name": "trust in the label against its image", "units": "1"}
    found["weight"] = xr.DataArray(chip.weight, dims=("time", "y", "x"), attrs=weight | mapping)
    if chip.sure is not None:
        sure = {"long_name": "seen free of cloud, and a label that is more likely right than wrong"}
        found["sure"] = xr.DataArray(chip.sure, dims=("time", "y", "x"), attrs=sure | mapping)
    if chip.glaciers is not None:
        found["glaciers"] = xr.DataArray(
            chip.glaciers, dims=("y", "x"), attrs={"long_name": "number of the glacier, 0 for none"} | mapping
        )
    dataset = xr.Dataset(found, coords=_coords(chip, grid))
    for key in dataset.variables:
        # No value stands for another: what is missing is NaN, and labels say what is unknown.
        dataset[key].encoding = {"_FillValue": None, "chunks": dataset[key].shape}
    dataset["time"].encoding = {
        "units": "seconds since 1970-01-01",
        "dtype": "int64",
        "calendar": "proleptic_gregorian",
    }
    return dataset.assign_attrs(Conventions="CF-1.11", title=chip.name, **said)


def _coords(chip: Chip, grid: GeoBox | None) -> dict[str, Any]:
    height, width = chip.label.shape[1:]
    time = xr.DataArray(chip.time, dims="time", attrs={"standard_name": "time"})
    if grid is None:
        metres: Any = {"units": "m", "long_name": "distance within a chip of which no place on Earth is known"}
        down, along = np.arange(height)[::-1] + 0.5, np.arange(width) + 0.5
        return {
            "time": time,
            "y": xr.DataArray(down * chip.resolution, dims="y", attrs=metres),
            "x": xr.DataArray(along * chip.resolution, dims="x", attrs=metres),
        }
    from odc.geo.xr import xr_coords

    return {"time": time, **{str(name): values for name, values in xr_coords(grid).items()}}
