"""The ground: elevation and what follows from it, once for all dates."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import xarray as xr
from odc.geo.geobox import GeoBox

from glaciercube.catalog import Scenes
from glaciercube.cube.north import grid_north
from glaciercube.cube.request import Backend, requests
from glaciercube.cube.terrain import TERRAIN_HALO, terrain_variables
from glaciercube.sensors import Sensor

__all__ = ["load_ground"]


def load_ground(sensor: Sensor, scenes: Scenes, geobox: GeoBox, cell: int, backend: Backend) -> xr.Dataset:
    """Lay the elevation model on the grid, with slope, aspect and curvature, lazily.

    Parameters
    ----------
    sensor : Sensor
        The elevation model.
    scenes : Scenes
        Its tiles.
    geobox : GeoBox
        The grid.
    cell : int
        Side of a lattice cell in pixels.
    backend : Backend
        What reads.

    Returns
    -------
    Dataset (y, x)
        float32, NaN where unknown; see `glaciercube.cube.load`.
    """
    margin = TERRAIN_HALO
    padded = geobox.pad(margin)
    # Tiles say different dates and make one surface.
    surfaces = [
        sensor.decode(backend(request).isel(time=0, drop=True), xr.DataArray(0.0))["elevation"]
        for request in requests(sensor, scenes, padded, cell)
    ]
    elevation = surfaces[0]
    for other in surfaces[1:]:
        elevation = elevation.fillna(other)
    # Read with its margin in place, so that slopes at the grid's edge see their neighbours.
    inside = {"y": slice(margin, -margin), "x": slice(margin, -margin)}
    chunks = {"y": cell, "x": cell}
    terrain: dict[str, xr.DataArray] = {"elevation": elevation}
    derived = elevation.data.map_overlap(
        _terrain_stack,
        depth={0: margin, 1: margin},
        boundary=np.nan,
        resolution=float(abs(geobox.resolution.x)),
        new_axis=0,
        chunks=(len(_TERRAIN), *elevation.data.chunks),
        dtype="float32",
        meta=np.empty((0, 0, 0), dtype="float32"),
        trim=False,
    )
    for index, (name, (units, text)) in enumerate(_TERRAIN.items()):
        terrain[name] = elevation.copy(data=derived[index]).assign_attrs(units=units, long_name=text)
        terrain[name].attrs.pop("standard_name", None)
    dataset = xr.Dataset({name: variable.isel(inside).chunk(chunks) for name, variable in terrain.items()})
    north = grid_north(geobox, cell)
    sine, cosine = dataset["aspect_sin"], dataset["aspect_cos"]
    # The sun's azimuth counts from true north, and so must the aspect: on polar grids they differ by any angle.
    dataset["aspect_sin"] = sine.copy(data=sine.data * north[1] - cosine.data * north[0])
    dataset["aspect_cos"] = cosine.copy(data=cosine.data * north[1] + sine.data * north[0])
    epochs = sorted({json.loads(text)["epoch"] for text in scenes.table["notes"]})
    return dataset.assign_attrs(epoch="/".join(epochs))


_TERRAIN: dict[str, tuple[str, str]] = {
    "slope": ("degree", "slope of the surface"),
    "aspect_sin": ("1", "sine of the downslope direction, clockwise from true north"),
    "aspect_cos": ("1", "cosine of the downslope direction, clockwise from true north"),
    "curvature": ("m-1", "Laplacian of elevation, positive in hollows"),
}


def _terrain_stack(block: np.ndarray[Any, Any], resolution: float) -> np.ndarray[Any, Any]:
    found = terrain_variables(block, resolution)
    stack = np.stack([found[name] for name in _TERRAIN])
    m = TERRAIN_HALO
    return stack[:, m:-m, m:-m]
