"""A sensor's scenes as a time series on the grid, in physical units."""

from __future__ import annotations

import numpy as np
import xarray as xr
from odc.geo.geobox import GeoBox

from glaciercube.catalog import Scenes
from glaciercube.cube.request import Backend, requests
from glaciercube.sensors import Sensor

__all__ = ["load_series"]


def load_series(sensor: Sensor, scenes: Scenes, geobox: GeoBox, cell: int, backend: Backend) -> xr.Dataset:
    """Lay a sensor's scenes on the grid, lazily.

    Parameters
    ----------
    sensor : Sensor
        Whose scenes.
    scenes : Scenes
        Of this sensor alone.
    geobox : GeoBox
        The grid.
    cell : int
        Side of a lattice cell in pixels.
    backend : Backend
        What reads.

    Returns
    -------
    Dataset (time, y, x)
        As `Sensor.decode` gives it, one layer per observation; the sun as coordinates along time for optical sensors.
    """
    table = scenes.table
    layers: dict[np.datetime64, list[xr.Dataset]] = {}
    for request in requests(sensor, scenes, geobox, cell):
        raw = backend(request)
        decoded = sensor.decode(raw, xr.DataArray(np.full(raw.sizes["time"], request.offset), dims="time"))
        for index, time in enumerate(decoded["time"].to_numpy()):
            layers.setdefault(time, []).append(decoded.isel(time=index))
    times = sorted(layers)
    series = xr.concat(
        _alike([_merge(layers[time]) for time in times]),
        "time",
        combine_attrs="override",
        coords="minimal",
        compat="override",
        join="override",
    )
    series = series.assign_coords(time=("time", np.array(times), {"standard_name": "time", "long_name": "acquisition"}))
    if (table["level"] != "").any():
        first = table.drop_duplicates("time").set_index("time").sort_index()
        for name in ("sun_azimuth", "sun_elevation"):
            series = series.assign_coords({name: ("time", first[name].to_numpy("float32"), {"units": "degree"})})
    levels = sorted(set(table["level"]) - {""})
    return series.assign_attrs({"reflectance": "+".join(levels)} if levels else {})


def _merge(layers: list[xr.Dataset]) -> xr.Dataset:
    """Layers of one observation into one; where two have a pixel, the first wins."""
    merged, *others = _alike(layers)
    for layer in others:
        merged = xr.Dataset({name: _over(merged[name], layer[name]) for name in merged.data_vars})
    return merged


def _over(upper: xr.DataArray, lower: xr.DataArray) -> xr.DataArray:
    # Classes have no NaN: 0 is their "no data".
    return upper.where(upper != 0, lower) if upper.dtype.kind == "u" else upper.fillna(lower)


def _alike(layers: list[xr.Dataset]) -> list[xr.Dataset]:
    """Give every layer the variables of all: what a scene does not publish is missing there."""
    known = {name: layer[name] for layer in reversed(layers) for name in layer.data_vars}
    return [layer.assign({name: _missing(known[name]) for name in known if name not in layer}) for layer in layers]


def _missing(like: xr.DataArray) -> xr.DataArray:
    return xr.zeros_like(like) if like.dtype.kind == "u" else xr.full_like(like, np.nan)
