"""compose(): sensors with time axes of their own onto one time axis."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import xarray as xr

from glaciercube.cube.masks import CLEAR_FLAGS, FLAG_CLOUD, FLAG_OBSERVED, FLAG_SHADOW, FLAG_SNOW, optical_flags
from glaciercube.cube.passes import PASS_COORDS, passes_of_node, window_passes
from glaciercube.cube.schedule import ComposeOptions, Row, schedule
from glaciercube.cube.statistics import nan_median
from glaciercube.cube.terrain import hillshade
from glaciercube.errors import CubeError
from glaciercube.sensors import decibel
from glaciercube.sensors.layers import LAYERS
from glaciercube.sensors.sentinel1 import POLARIZATIONS
from glaciercube.sensors.sentinel2 import CLOUD_LAYERS

__all__ = ["CLEAR_FLAGS", "FLAG_CLOUD", "FLAG_OBSERVED", "FLAG_SHADOW", "FLAG_SNOW", "compose"]

# What a companion says of its pass, kept beside its age.
_ORBIT = tuple(name for name in PASS_COORDS if name != "group")
_SUN = ("sun_azimuth", "sun_elevation")


def compose(
    tree: xr.DataTree, options: ComposeOptions | str | None = None, rows: Sequence[Row] | None = None
) -> xr.Dataset:
    """Put all sensors of a tree on one time axis, lazily.

    Parameters
    ----------
    tree : DataTree
        From `load`, or made by hand: nodes ``sentinel2``, ``sentinel1`` and ``terrain`` with the variables that `load`
        gives them, as many as there are.
    options : ComposeOptions or str or None
        A string stands for ``ComposeOptions(every=...)``.
    rows : sequence of Row or None
        Steps of the time axis that were decided before, from more acquisitions than the tree has; all that the tree
        gives by default.

    Returns
    -------
    Dataset
        (time, y, x): optical bands, ``optical_flags`` (uint8 bits: 1 observed, 2 cloud, 4 cloud shadow, 8 snow, 64
        called cloud and recovered as ice) and what they were made from (``scl``, ``cloud_probability``,
        ``snow_probability``), ``hillshade`` where sun and terrain are known, ``vv vh vv_db vh_db``; (y, x): terrain
        variables; (time): ``sentinel1_age`` in days (companion minus observation; NaN where there is none), and
        ``sentinel1_orbit_state``, ``sentinel1_relative_orbit`` (int16; 0 where unknown, and where there is none),
        ``sentinel1_instrument_mode``, ``sentinel1_polarizations`` and ``sentinel1_platform`` of the companion where
        they are known; layers of the user's own by their names, put on the time axis as companions are (with
        ``<name>_age``) or, if they are static, once. In windows ``time`` is their start, with ``time_bnds``, and radar
        is of one track, of which ``sentinel1_dates`` acquisitions entered. float32, NaN where there is no data.

    Raises
    ------
    CubeError
        If the tree has no node that glaciercube knows, the option is unknown, or a layer is missing that the masks ask
        for.
    """
    if not isinstance(options, ComposeOptions):
        options = ComposeOptions(every=options or "observation")  # type: ignore[arg-type]
    nodes = {name: tree[name].to_dataset() for name in ("sentinel2", "sentinel1", "terrain") if name in tree.children}
    if LAYERS in tree.children:
        nodes |= {f"{LAYERS}/{name}": tree[LAYERS][name].to_dataset() for name in sorted(tree[LAYERS].children)}
    if not nodes:
        raise CubeError("the tree has neither sentinel2, sentinel1, terrain nor layers", "load at least one sensor")
    if "sentinel2" in nodes:
        nodes["sentinel2"] = nodes["sentinel2"].assign(optical_flags=optical_flags(nodes["sentinel2"], options.mask))
    if "sentinel1" in nodes:
        nodes["sentinel1"] = _with_decibels(nodes["sentinel1"])
    dynamic = {name: node for name, node in nodes.items() if "time" in node.dims}
    static = {name: node for name, node in nodes.items() if name not in dynamic}
    if not dynamic:
        return _static_only(static)
    steps = _schedule(dynamic, options) if rows is None else list(rows)
    cube = _on_observations(dynamic, steps) if options.every == "observation" else _in_windows(dynamic, steps)
    for name, node in static.items():
        cube = _with_terrain(cube, node) if name == "terrain" else cube.assign(node.data_vars)
    return cube.transpose("time", "y", "x", ...).assign_attrs(_attributes(nodes, options))


def _schedule(dynamic: dict[str, xr.Dataset], options: ComposeOptions) -> list[Row]:
    coverage = {name: node["coverage"].to_numpy() for name, node in dynamic.items() if "coverage" in node.coords}
    passes = {name: passes_of_node(node) for name, node in dynamic.items() if name == "sentinel1"}
    return schedule({name: node["time"].to_numpy() for name, node in dynamic.items()}, options, coverage, passes)


def _with_decibels(radar: xr.Dataset) -> xr.Dataset:
    """Decibels beside power, where a tree made by hand has none."""
    missing = [name for name in POLARIZATIONS if name in radar and f"{name}_db" not in radar]
    return radar.assign({f"{name}_db": decibel(radar[name]).assign_attrs(units="dB") for name in missing})


def _attributes(nodes: dict[str, xr.Dataset], options: ComposeOptions) -> dict[Hashable, Any]:
    attrs: dict[Hashable, Any] = {"compose": options.every}
    if "sentinel2" in nodes:
        attrs["reflectance"] = nodes["sentinel2"].attrs.get("reflectance", "")
        attrs["mask"] = json.dumps(asdict(options.mask), sort_keys=True)
    if "terrain" in nodes:
        attrs["terrain_epoch"] = nodes["terrain"].attrs.get("epoch", "")
    return attrs


def _on_observations(dynamic: dict[str, xr.Dataset], rows: list[Row]) -> xr.Dataset:
    leading, *companions = dynamic
    times = np.array([row.time for row in rows])
    cube = dynamic[leading]
    if not np.array_equal(times, cube["time"]):
        cube = cube.sel(time=times)
    for name in companions:
        node = dynamic[name]
        index = [
            int(np.flatnonzero(node["time"].to_numpy() == row.members[name][0])[0]) if name in row.members else -1
            for row in rows
        ]
        # A row without a companion borrows the first one's shape and none of its values.
        near = xr.DataArray(np.array(index) >= 0, dims="time", coords={"time": times})
        companion = node.isel(time=np.maximum(index, 0)).assign_coords(time=times)
        own = [coord for coord in companion.coords if coord != "time" and "time" in companion[coord].dims]
        cube = cube.assign(companion.drop_vars(own).map(_only_where, keep_attrs=True, near=near).data_vars)
        cube = cube.assign_coords(
            # Without the node's other coordinates: those of the leading sensor stand for the row.
            {
                f"{_own(name)}_{coord}": _only_where(companion[coord].reset_coords(drop=True), near)
                for coord in _named(companion)
            }
        )
    return cube.assign(_ages(rows, leading, companions))


def _only_where(variable: xr.DataArray, near: xr.DataArray) -> xr.DataArray:
    if "time" not in variable.dims:
        return variable
    # Flags are unsigned, and their "nothing was there" is 0, as is an orbit's number; a name's is empty.
    fill: Any = {"u": 0, "i": 0, "b": False, "U": "", "O": ""}.get(variable.dtype.kind, np.nan)
    kept = variable.where(near, fill)
    return kept.astype(variable.dtype) if variable.dtype.kind in "uib" else kept


def _named(node: xr.Dataset) -> list[str]:
    return [name for name in _ORBIT if name in node.coords and node[name].dims == ("time",)]


def _in_windows(dynamic: dict[str, xr.Dataset], rows: list[Row]) -> xr.Dataset:
    reducers: dict[str, Callable[[xr.Dataset], xr.Dataset]] = {"sentinel2": _clear_median, "sentinel1": _power_median}
    windows = np.array([row.time for row in rows])
    parts: list[xr.Dataset] = []
    # Where no window has any of a sensor, one before them all lends its variables, and none of its values.
    before = min(windows) - np.timedelta64(1, "D")
    for name, node in dynamic.items():
        made = {row.time: list(row.members[name]) for row in rows if name in row.members}
        reduced = [
            reducers.get(name, _layer_median)(node.sel(time=members)).expand_dims(time=[time])
            for time, members in (made or {before: list(node["time"].to_numpy()[:1])}).items()
        ]
        joined = xr.concat(
            reduced, "time", coords="minimal", compat="override", combine_attrs="override", join="override"
        )
        # Flags are integers, whose "nothing was there" is 0 and not NaN.
        fill: Any = {"optical_flags": np.uint8(0)} if "optical_flags" in joined else np.nan
        joined = joined.reindex(time=windows, fill_value=fill)
        parts.append(joined.set_coords([sun for sun in _SUN if sun in joined]))
    cube = xr.merge(parts, combine_attrs="override", compat="override", join="outer")
    leading, *companions = dynamic
    bounds = np.array([[row.time, row.end] for row in rows]).astype(windows.dtype)
    cube = cube.assign(_ages(rows, leading, companions)).assign_coords(time_bnds=(("time", "bnds"), bounds))
    if "sentinel1" in dynamic:
        said = window_passes(dynamic["sentinel1"], [np.array(row.members.get("sentinel1", ())) for row in rows])
        cube = cube.assign_coords({f"sentinel1_{name}": values for name, values in said.items()})
    cube["time"].attrs.update(standard_name="time", bounds="time_bnds", long_name="start of the window")
    return cube


def _ages(rows: list[Row], leading: str, companions: list[str]) -> dict[str, xr.DataArray]:
    ages = {}
    for name in companions:
        days = np.array([row.age(name, leading) for row in rows], "float32")
        attrs = {"units": "days", "long_name": f"acquisition of {_own(name)} minus that of {_own(leading)}"}
        ages[f"{_own(name)}_age"] = xr.DataArray(days, dims="time", attrs=attrs)
    return ages


def _clear_median(node: xr.Dataset) -> xr.Dataset:
    flags = node["optical_flags"]
    clear = ((flags & FLAG_OBSERVED) > 0) & ((flags & CLEAR_FLAGS) == 0)
    state = {"optical_flags", *CLOUD_LAYERS}
    reduced = _median(node[[name for name in node.data_vars if name not in state]].where(clear))
    # Clear at least once: what remains of the flags is snow by majority; never clear: whatever hid it.
    snow = (((flags & FLAG_SNOW) > 0) & clear).sum("time") * 2 > clear.sum("time")
    once = clear.any("time")
    hidden = flags.max("time") & np.uint8(FLAG_OBSERVED | CLEAR_FLAGS)
    kept = np.uint8(FLAG_OBSERVED) + snow.astype("uint8") * np.uint8(FLAG_SNOW)
    reduced["optical_flags"] = kept.where(once, hidden).astype("uint8").assign_attrs(flags.attrs)
    return reduced.assign(_mean_sun(node))


def _layer_median(node: xr.Dataset) -> xr.Dataset:
    """Medians of a layer's values; classes have none, and the latest that is known stands."""
    reduced = {}
    for name, variable in node.data_vars.items():
        if variable.attrs.get("kind") == "classes":
            latest, *before = (
                variable.isel(time=index, drop=True) for index in reversed(range(variable.sizes["time"]))
            )
            for other in before:
                latest = latest.fillna(other)
            reduced[name] = latest
        else:
            reduced[name] = _median(node[[name]])[name]
    return xr.Dataset(reduced)


def _mean_sun(node: xr.Dataset) -> dict[str, np.float32]:
    if not set(_SUN) <= set(node.coords):
        return {}
    azimuth = np.radians(node["sun_azimuth"].to_numpy())
    # Azimuths are averaged on the circle: 359 and 1 degree make 0, not 180.
    mean = np.degrees(np.arctan2(np.sin(azimuth).mean(), np.cos(azimuth).mean())) % 360.0
    return {"sun_azimuth": np.float32(mean), "sun_elevation": np.float32(node["sun_elevation"].mean())}


def _power_median(node: xr.Dataset) -> xr.Dataset:
    bands = [name for name in POLARIZATIONS if name in node]
    reduced = _median(node[bands])
    for name in bands:
        # Decibels are taken after the statistics, which belong to power.
        reduced[f"{name}_db"] = decibel(reduced[name]).assign_attrs(node[f"{name}_db"].attrs)
    return reduced


def _median(series: xr.Dataset) -> xr.Dataset:
    single = series.chunk(time=-1)
    return single.map(
        lambda variable: xr.apply_ufunc(
            nan_median,
            variable,
            input_core_dims=[["time"]],
            dask="parallelized",
            output_dtypes=[np.float32],
            keep_attrs=True,
        ),
        keep_attrs=True,
    )


def _with_terrain(cube: xr.Dataset, terrain: xr.Dataset) -> xr.Dataset:
    cube = cube.assign(terrain.data_vars)
    if "sun_azimuth" not in cube.coords or not np.isfinite(cube["sun_azimuth"]).any():
        return cube
    shade = hillshade(
        terrain["slope"],
        terrain["aspect_sin"],
        terrain["aspect_cos"],
        sun_azimuth=cube["sun_azimuth"],
        sun_elevation=cube["sun_elevation"],
    ).astype("float32")
    shade = shade.transpose("time", "y", "x").assign_attrs(units="1", long_name="cosine of solar incidence")
    return cube.assign(hillshade=shade.chunk({"time": 1}))


def _static_only(static: dict[str, xr.Dataset]) -> xr.Dataset:
    epoch = max(str(node.attrs.get("epoch", "")).split("/")[-1] for node in static.values()) or "2000-01-01"
    first, *others = static.values()
    for node in others:
        first = first.assign(node.data_vars)
    cube = first.assign_coords(time=("time", np.array([epoch], "datetime64[ms]")))
    terrain = static.get("terrain", xr.Dataset()).attrs.get("epoch", "")
    return cube.assign_attrs(compose="observation", terrain_epoch=terrain)


def _own(node: str) -> str:
    """A node's own name: what a layer's variables go by."""
    return node.rpartition("/")[2]
