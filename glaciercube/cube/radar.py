"""Sentinel-1 as a time series: platforms made alike, borders cleaned, power averaged, decibels last."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.geom import Geometry

from glaciercube.catalog import Scenes
from glaciercube.cube.coverage import with_coverage
from glaciercube.cube.neighbours import with_neighbours
from glaciercube.cube.passes import pass_table
from glaciercube.cube.series import Layers, check_labels, join_layers, read_layers
from glaciercube.cube.speckle import EDGE_WIDTH, border_noise, lee_filter, local_mean, mean_of_layers
from glaciercube.errors import require
from glaciercube.reading.request import Backend
from glaciercube.region import whole_of
from glaciercube.sensors import Sensor, decibel
from glaciercube.sensors.sentinel1 import CO_POLARIZED, PLATFORM_DB, POLARIZATIONS

__all__ = ["RadarOptions", "averaged_times", "load_radar"]

_LOOKS: Final = {"IW": 4.4, "EW": 10.7}  # equivalent number of looks of GRD (Sentinel-1 product specification)
_RESOLUTION_CELL: Final = {"IW": 20.0 * 22.0, "EW": 93.0 * 87.0}  # m2, ground range by azimuth (same)
# Metres within a footprint where border noise may be: twice the 500 pixels that SNAP's operator looks at.
_EDGE_METRES: Final = 10_000.0
_META: Final = np.empty((0, 0), dtype="float32")


@dataclass(frozen=True)
class RadarOptions:
    """What is done to Sentinel-1's power before decibels are taken.

    Attributes
    ----------
    multilook_dates : int
        Mean of power over so many dates nearest in time of the same relative orbit and mode, the date itself included;
        where that one has no data, there is none.
    multilook_days : float
        Days; dates further away than this are not averaged.
    speckle : {"none", "mean", "lee"}
        Mean of a window, or Lee's filter.
    window : int
        Side of the filter's window in pixels, odd.
    looks : float or None
        Equivalent number of looks before any averaging here; from the scene's mode and the pixel size when None.
    border_noise : bool
        Mask the noise along the edges of swaths; see `glaciercube.cube.speckle.border_noise`.
    border_floor : float
        dB; darker pixels at the edge are noise. -30 is what the guide to Earth Engine's Sentinel-1 collection uses.
    border_reach : int
        Pixels from the edge at most.
    correct_platform : bool
        Apply each scene's recorded correction of its platform (`glaciercube.sensors.sentinel1.PLATFORM_DB`).
    platform_db : dict
        Corrections of one's own in dB, such as ``{"sentinel-1c": 0.2}``, in place of the recorded ones.
    """

    multilook_dates: int = 1
    multilook_days: float = 40.0
    speckle: Literal["none", "mean", "lee"] = "none"
    window: int = 7
    looks: float | None = None
    border_noise: bool = True
    border_floor: float = -30.0
    border_reach: int = 32
    correct_platform: bool = True
    platform_db: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        checks = (
            (self.multilook_dates >= 1, f"multilook_dates {self.multilook_dates} is not a number of dates", "give 1"),
            (self.multilook_days >= 0, f"multilook_days {self.multilook_days} is not a number of days", "give 40"),
            (self.speckle in ("none", "mean", "lee"), f"unknown speckle filter {self.speckle!r}", "choose none or lee"),
            (self.window >= 3 and self.window % 2 == 1, f"window {self.window} has no middle", "give 3, 5, 7 or more"),
            (self.looks is None or self.looks > 0, f"looks {self.looks} is not positive", "leave it out"),
            (self.border_reach >= 1, f"border_reach {self.border_reach} is not a number of pixels", "give 1 or more"),
        )
        for fine, problem, remedy in checks:
            require(fine, problem, remedy)
        for platform, value in self.platform_db.items():
            known = platform in PLATFORM_DB and math.isfinite(value)
            require(known, f"no correction {value} dB of {platform!r}", f"name one of {', '.join(PLATFORM_DB)}")


def load_radar(
    sensor: Sensor, scenes: Scenes, geobox: GeoBox, cell: int, backend: Backend, options: RadarOptions
) -> xr.Dataset:
    """Lay Sentinel-1 scenes on the grid, lazily.

    Parameters
    ----------
    sensor : Sensor
        Sentinel-1.
    scenes : Scenes
        Of this sensor alone.
    geobox : GeoBox
        The grid.
    cell : int
        Side of a lattice cell in pixels.
    backend : Backend
        What reads.
    options : RadarOptions
        What is done to power.

    Returns
    -------
    Dataset (time, y, x)
        float32 ``vv vh hh hv`` linear power and ``vv_db`` and so on, as far as scenes have them, NaN elsewhere;
        ``local_incidence`` and ``layover_shadow`` where they were asked for at `find`; one layer per pass of one
        platform, orbit and mode. Coordinates along time: ``orbit_state``, ``platform``, ``instrument_mode``,
        ``polarizations`` (``"vv+vh"``), ``group`` (text, empty where unknown), ``relative_orbit`` (int, 0 where
        unknown) and ``coverage`` (share of the grid within its footprints).

    Raises
    ------
    CubeError
        If two overpasses have one time.
    """
    check_labels(scenes)
    scenes = with_corrections(scenes, options)
    layers: Layers = {}
    for part in _single_slices(scenes) if options.border_noise else [scenes]:
        for time, found in read_layers(sensor, part, geobox, cell, backend).items():
            # Decibels are taken at the end, of what becomes of power.
            power = [layer.drop_vars([f"{name}_db" for name in POLARIZATIONS if name in layer]) for layer in found]
            if options.border_noise and _at_edge(part, time, geobox):
                power = [_without_border_noise(layer, options) for layer in power]
            layers.setdefault(time, []).extend(power)
    series = join_layers(layers)
    passes = pass_table(scenes)
    looks = _looks(passes, geobox, options)
    if options.multilook_dates > 1:
        members = _members(passes, options)
        series = _averaged(series, members)
        looks = looks * np.array([len(group) for group in members])
    if options.speckle != "none":
        series = _filtered(series, options, looks)
    return with_coverage(_described(_with_decibels(series), passes), scenes, geobox)


def averaged_times(scenes: Scenes, options: RadarOptions) -> dict[np.datetime64, tuple[np.datetime64, ...]]:
    """Which observations make each one's pixels: itself, and those that multilooking averages it with.

    Parameters
    ----------
    scenes : Scenes
        Of Sentinel-1 alone.
    options : RadarOptions
        How power is averaged.
    """
    passes = pass_table(scenes)
    times = passes.index.to_numpy()
    return {times[row]: tuple(sorted(times[group])) for row, group in enumerate(_members(passes, options))}


def with_corrections(scenes: Scenes, options: RadarOptions) -> Scenes:
    """Scenes whose offset (dB) is the correction that the options ask for.

    Parameters
    ----------
    scenes : Scenes
        Of Sentinel-1 alone.
    options : RadarOptions
        Which corrections.
    """
    if options.correct_platform and not options.platform_db:
        return scenes
    table = scenes.table.copy()
    platforms = [json.loads(text).get("platform") or "" for text in table["notes"]]
    table["offset"] = [
        options.platform_db.get(platform, float(recorded)) if options.correct_platform else 0.0
        for platform, recorded in zip(platforms, table["offset"], strict=True)
    ]
    return replace(scenes, table=table)


def _single_slices(scenes: Scenes) -> list[Scenes]:
    """Parted so that none has two slices of one observation: each slice's border is cleaned before they meet."""
    rank = scenes.table.groupby("time").cumcount().to_numpy()
    return [
        replace(scenes, table=scenes.table[rank == step].reset_index(drop=True)) for step in range(int(rank.max()) + 1)
    ]


def _at_edge(scenes: Scenes, time: np.datetime64, geobox: GeoBox) -> bool:
    """Whether the grid comes near the edge of a scene; inside a swath nothing need be looked at."""
    footprint = scenes.table.loc[scenes.table["time"].to_numpy() == time, "geometry"].iloc[0]
    west, _, east, _ = footprint.bounds
    if not east - west < 90:
        return True  # it crosses the antimeridian, or holds a pole
    on_grid = Geometry(footprint, "EPSG:4326").to_crs(str(geobox.crs), resolution=0.1)
    # Asked of the whole grid, so that a window of it has the same pixels.
    return not bool(on_grid.geom.buffer(-_EDGE_METRES).contains(whole_of(geobox).extent.geom))


def _without_border_noise(layer: xr.Dataset, options: RadarOptions) -> xr.Dataset:
    # Cross-polarised power is at the noise floor of the instrument over much of what is real.
    lead = next((name for name in CO_POLARIZED if name in layer), None)
    if lead is None:
        return layer
    found = with_neighbours(
        border_noise,
        layer[lead].data,
        # Further away than the grid is long there is only more of what lies beyond it.
        min(options.border_reach, max(layer[lead].shape)) + EDGE_WIDTH,
        # What lies beyond the grid is not known: its edge is no edge of a swath.
        boundary="nearest",
        dtype=bool,
        floor=10.0 ** (options.border_floor / 10.0),
        reach=options.border_reach,
    )
    noise = layer[lead].copy(data=found)
    return layer.assign({name: layer[name].where(~noise) for name in POLARIZATIONS if name in layer})


def _looks(passes: pd.DataFrame, geobox: GeoBox, options: RadarOptions) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Equivalent number of looks of each observation on the grid: a pixel averages the resolution cells it holds."""
    pixel = abs(geobox.resolution.x * geobox.resolution.y)
    found = []
    for mode, stated in zip(passes["instrument_mode"], passes["looks"], strict=True):
        native = _LOOKS.get(mode, _LOOKS["IW"]) if stated is None or not stated > 0 else float(stated)
        cells = max(1.0, pixel / _RESOLUTION_CELL.get(mode, _RESOLUTION_CELL["IW"]))
        found.append(options.looks or native * cells)
    return np.array(found, dtype=float)


def _members(passes: pd.DataFrame, options: RadarOptions) -> list[list[int]]:
    """Per observation, the rows that are averaged: itself first, the earlier of two as near before the later."""
    alike = passes[["orbit_state", "relative_orbit", "instrument_mode"]].to_numpy()
    days = passes.index.to_numpy().astype("datetime64[ms]").astype(float) / 86_400_000.0
    members = []
    for row in range(len(passes)):
        away = np.abs(days - days[row])
        candidates = [
            other
            for other in np.argsort(away, kind="stable")
            if away[other] <= options.multilook_days and (alike[other] == alike[row]).all()
        ]
        members.append([int(other) for other in candidates[: options.multilook_dates]])
    return members


def _averaged(series: xr.Dataset, members: list[list[int]]) -> xr.Dataset:
    def average(power: xr.DataArray) -> xr.DataArray:
        layers = [
            da.map_blocks(mean_of_layers, *(power.data[row] for row in rows), dtype=power.dtype, meta=_META)
            for rows in members
        ]
        return power.copy(data=da.stack(layers))

    return _on_power(series, average)


def _filtered(series: xr.Dataset, options: RadarOptions, looks: np.ndarray[Any, np.dtype[np.float64]]) -> xr.Dataset:
    def smooth(power: xr.DataArray) -> xr.DataArray:
        layers = []
        for row, count in enumerate(looks):
            known: dict[str, Any] = {} if options.speckle == "mean" else {"looks": float(count)}
            function = local_mean if options.speckle == "mean" else lee_filter
            near: dict[str, Any] = {"boundary": np.nan, "dtype": power.dtype, "window": options.window}
            depth = min(options.window // 2, max(power.shape[1:]))
            layers.append(with_neighbours(function, power.data[row], depth, **near, **known))
        return power.copy(data=da.stack(layers))

    return _on_power(series, smooth)


def _on_power(series: xr.Dataset, function: Callable[[xr.DataArray], xr.DataArray]) -> xr.Dataset:
    return series.assign({name: function(series[name]) for name in POLARIZATIONS if name in series})


def _with_decibels(series: xr.Dataset) -> xr.Dataset:
    """Decibels belong after every average: their mean is not that of power."""
    out = {}
    for name, power in series.data_vars.items():
        out[name] = power
        if name not in POLARIZATIONS:
            continue
        out[f"{name}_db"] = decibel(power).assign_attrs(units="dB", long_name=f"{str(name).upper()} gamma nought")
    return xr.Dataset(out)


def _described(series: xr.Dataset, passes: pd.DataFrame) -> xr.Dataset:
    texts = {
        "orbit_state": "direction of the pass",
        "relative_orbit": "relative orbit, 0 where unknown",
        "platform": "satellite",
        "instrument_mode": "mode of acquisition",
        "polarizations": "polarisations, joined by +",
        "group": "overpass",
    }
    coords = {}
    for name, text in texts.items():
        values = passes[name].to_numpy()
        values = values.astype("int16") if name == "relative_orbit" else values.astype("U")
        coords[name] = ("time", values, {"long_name": text})
    return series.assign_coords(coords)
