"""A sensor's scenes as a time series on the grid, in physical units."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
import xarray as xr
from odc.geo.geobox import GeoBox

from glaciercube.catalog import Scenes
from glaciercube.cube.coverage import with_coverage
from glaciercube.errors import CubeError
from glaciercube.reading.request import Backend, requests
from glaciercube.sensors import Sensor

__all__ = ["Layers", "check_labels", "join_layers", "load_series", "read_layers"]

Layers: TypeAlias = dict[np.datetime64, list[xr.Dataset]]


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
        As `Sensor.decode` gives it, one layer per observation. Coordinates along time: ``coverage`` (share of the grid
        within its footprints) and, for optical sensors, ``sun_azimuth`` and ``sun_elevation``, and ``view_azimuth`` and
        ``view_zenith`` where a provider says them; degrees, of the first scene of an observation.

    Raises
    ------
    CubeError
        If two overpasses have one time.
    """
    check_labels(scenes)
    table = scenes.table
    series = join_layers(read_layers(sensor, scenes, geobox, cell, backend))
    if (table["level"] != "").any():
        first = table.drop_duplicates("time").set_index("time").sort_index()
        for name in ("sun_azimuth", "sun_elevation"):
            series = series.assign_coords({name: ("time", first[name].to_numpy("float32"), {"units": "degree"})})
        notes = [json.loads(text) for text in first["notes"]]
        for name in ("view_azimuth", "view_zenith"):
            angles = np.array([note.get(name, np.nan) for note in notes], "float32")
            if np.isfinite(angles).any():
                series = series.assign_coords({name: ("time", angles, {"units": "degree"})})
    series = with_coverage(series, scenes, geobox)
    levels = sorted(set(table["level"]) - {""})
    return series.assign_attrs({"reflectance": "+".join(levels)} if levels else {})


def read_layers(sensor: Sensor, scenes: Scenes, geobox: GeoBox, cell: int, backend: Backend) -> Layers:
    """Read scenes as layers in physical units, lazily; parameters as of `load_series`.

    Returns
    -------
    dict
        Label of an observation -> its layers (y, x), one for each way of storing that its scenes have.
    """
    layers: Layers = {}
    for request in requests(sensor, scenes, geobox, cell):
        raw = backend(request)
        decoded = sensor.decode(raw, xr.DataArray(np.full(raw.sizes["time"], request.offset), dims="time"))
        for index, time in enumerate(decoded["time"].to_numpy()):
            layers.setdefault(time, []).append(decoded.isel(time=index))
    return layers


def join_layers(layers: Mapping[np.datetime64, Sequence[xr.Dataset]]) -> xr.Dataset:
    """Layers as one series, ascending in time; where two of one observation have a pixel, the first wins."""
    times = sorted(layers)
    series: xr.Dataset = xr.concat(
        _alike([_merge(layers[time]) for time in times]),
        "time",
        combine_attrs="override",
        coords="minimal",
        compat="override",
        join="override",
    )
    return series.assign_coords(time=("time", np.array(times), {"standard_name": "time", "long_name": "acquisition"}))


def check_labels(scenes: Scenes) -> None:
    """Refuse two overpasses under one label, which would become one picture.

    Raises
    ------
    CubeError
        If there are.
    """
    passes = scenes.table["group"].str.partition("/")[2]
    for time, names in passes.groupby(scenes.table["time"].to_numpy()):
        if names.nunique() > 1:
            raise CubeError(
                f"two overpasses share the time {time}: {' and '.join(sorted(set(names)))}",
                "choose one of them: by orbit for sentinel-1, by collection otherwise",
            )


def _merge(layers: Sequence[xr.Dataset]) -> xr.Dataset:
    merged, *others = _alike(layers)
    for layer in others:
        merged = xr.Dataset({name: _over(merged[name], layer[name]) for name in merged.data_vars})
    return merged


def _over(upper: xr.DataArray, lower: xr.DataArray) -> xr.DataArray:
    # Classes have no NaN: 0 is their "no data".
    return upper.where(upper != 0, lower) if upper.dtype.kind == "u" else upper.fillna(lower)


def _alike(layers: Sequence[xr.Dataset]) -> list[xr.Dataset]:
    """Give every layer the variables of all: what a scene does not publish is missing there."""
    known = {name: layer[name] for layer in reversed(layers) for name in layer.data_vars}
    return [layer.assign({name: _missing(known[name]) for name in known if name not in layer}) for layer in layers]


def _missing(like: xr.DataArray) -> xr.DataArray:
    return xr.zeros_like(like) if like.dtype.kind == "u" else xr.full_like(like, np.nan)
