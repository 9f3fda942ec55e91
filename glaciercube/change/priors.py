"""Extents change no faster than ice can: a prior on each pixel's series, which says where it overruled the data."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any, Final, TypeAlias

import dask.array as da
import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr
from odc.geo.xr import xr_coords  # noqa: F401 - registers the .odc accessor

from glaciercube.change.hidden_markov import (
    FAR,
    GAINED,
    LOST,
    STEEP,
    UNCONFIRMED,
    PriorOptions,
    smooth_series,
)
from glaciercube.change.rows import hidden
from glaciercube.change.terrain import MADE
from glaciercube.errors import CubeError
from glaciercube.region.sun import DAYS_PER_YEAR
from glaciercube.store import provenance_of

__all__ = ["GAINED", "LOST", "STEEP", "UNCONFIRMED", "PriorOptions", "prior_report", "smooth_series", "with_prior"]

FloatArray: TypeAlias = npt.NDArray[np.float64]

_OBSERVED_WITH: Final = ("model", "model_hash", "modalities", "variables")


def with_prior(
    cube: xr.Dataset,
    options: PriorOptions | None = None,
    *,
    allow: xr.DataArray | None = None,
    slope: xr.DataArray | None = None,
) -> xr.Dataset:
    """Lay the prior on a probability cube; the observation stays beside it.

    Parameters
    ----------
    cube : Dataset
        As from `glaciercube.store.open_store`: ``glacier_probability`` and, if it has them, ``quality`` (time, y, x),
        on a grid in metres. Lazy cubes stay lazy, and need all dates of a block at once.
    options : PriorOptions or None
        How fast ice may change.
    allow : (y, x) bool DataArray or None
        Where any change is as likely as none: known surges, calving fronts, tongues that fall apart.
    slope : (y, x) DataArray or None
        Degrees, if the options name a steepest one.

    Returns
    -------
    Dataset
        ``glacier_probability`` (time, y, x) float32: given all dates, NaN where the date shows nothing;
        ``glacier_probability_observed``: as it was; ``overruled`` uint8: bits `GAINED`, `LOST`, `UNCONFIRMED`, `STEEP`
        where both lie on different sides of the threshold; ``quality``. Attribute ``prior``: the options. It has no
        provenance of a model any more, so that no interval that was calibrated without the prior is given to its areas;
        ``observed_with`` says what the observation was made with.

    Raises
    ------
    CubeError
        If dates are not in order, or there is one alone; or if no slope was given and the options name a steepest.
    """
    options = options or PriorOptions()
    if options.steepest is not None and slope is None:
        raise CubeError("the prior's options name a steepest slope", "give slope, as in the cube's terrain")
    observed = cube["glacier_probability"].transpose("time", "y", "x")
    times = pd.DatetimeIndex(observed["time"].to_numpy())
    if len(times) < 2 or not times.is_monotonic_increasing:
        raise CubeError(
            f"a prior on change needs two dates or more in order, not {len(times)}", "sort the cube by time"
        )
    seen = observed
    if "quality" in cube:
        seen = observed.where(~hidden(cube["quality"].transpose("time", "y", "x"), options.hidden_by))
    years = (times - times[0]).days.to_numpy() / DAYS_PER_YEAR
    resolution = float(abs(observed["x"][1] - observed["x"][0]))
    free = xr.zeros_like(observed.isel(time=0), dtype=bool) if allow is None else allow.transpose("y", "x")
    stack = _apply(seen.data, free.data, years, resolution, options)
    count = len(times)
    made = observed.copy(data=stack[:count]).assign_attrs(long_name="glacier probability given all dates and the prior")
    flags = observed.copy(data=stack[count:].astype("uint8"))
    if slope is not None and options.steepest is not None:
        steep = made.notnull() & (slope > options.steepest)
        flags = flags.where(~steep, (seen >= options.threshold).astype("uint8") * np.uint8(STEEP))
        made = made.where(~steep, 0.0)
    flags.attrs = {
        "long_name": "where the prior overruled the date",
        "flag_masks": np.array([GAINED, LOST, UNCONFIRMED, STEEP], "uint8"),
        "flag_meanings": "date_says_no_ice date_says_ice among_the_last_dates date_says_ice_on_steep_ground",
    }
    found = {"glacier_probability": made, "glacier_probability_observed": observed, "overruled": flags}
    if "quality" in cube:
        found["quality"] = cube["quality"]
    attrs = {"region": cube.attrs["region"]} if "region" in cube.attrs else {}
    told = {name: value for name, value in provenance_of(cube).items() if name in _OBSERVED_WITH}
    if told:
        attrs[MADE] = json.dumps(told, sort_keys=True)
    return xr.Dataset(found, attrs={**attrs, "prior": json.dumps(asdict(options), sort_keys=True)})


def _apply(seen: Any, free: Any, years: FloatArray, resolution: float, options: PriorOptions) -> Any:
    """Probability of all dates, and then the flags of all: (2 time, y, x) float32, lazy if the input is."""
    count = len(years)

    def block(stack: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        made, flags = smooth_series(stack[:count], years, resolution, options, stack[count] > 0)
        return np.concatenate([made, flags]).astype(np.float32)

    if not isinstance(seen, da.Array):
        return block(np.concatenate([seen, np.asarray(free)[None]], dtype=np.float32))
    stack = da.concatenate([seen.astype("float32"), da.asarray(free)[None].astype("float32")])
    stack = stack.rechunk({0: -1, 1: seen.chunks[1], 2: seen.chunks[2]})
    # Beyond `FAR` the distance from the margin does not count: with that much around it, each block is as the whole.
    depth = {0: 0, 1: int(np.ceil(FAR / resolution)) + 1, 2: int(np.ceil(FAR / resolution)) + 1}
    grown = da.overlap.overlap(stack, depth=depth, boundary="none", allow_rechunk=True)
    chunks = ((2 * count,), *grown.chunks[1:])
    made = grown.map_blocks(block, chunks=chunks, dtype="float32", meta=np.empty((0, 0, 0), "float32"))
    return da.overlap.trim_internal(made, depth, boundary="none")


def prior_report(cube: xr.Dataset) -> pd.DataFrame:
    """Where and how much the prior overruled the data, date by date.

    Parameters
    ----------
    cube : Dataset
        From `with_prior`.

    Returns
    -------
    DataFrame
        Per time: ``seen_km2`` (what the date shows), ``observed_km2`` and ``corrected_km2`` (pixels from the threshold
        on, before and after), ``gained_km2`` and ``lost_km2`` (where the prior made ice of none, and none of ice),
        ``unconfirmed_km2`` (of both: what later dates may still confirm), ``steep_km2`` (where the date says ice on
        ground that is too steep) and ``share`` (of what is seen that was turned).
    """
    threshold = float(json.loads(cube.attrs["prior"])["threshold"])
    pixel = float(abs((cube["x"][1] - cube["x"][0]) * (cube["y"][1] - cube["y"][0]))) / 1e6
    flags, made = cube["overruled"], cube["glacier_probability"]
    observed = cube["glacier_probability_observed"].where(made.notnull())
    counts = {
        "seen_km2": made.notnull(),
        "observed_km2": observed >= threshold,
        "corrected_km2": made >= threshold,
        "gained_km2": (flags & GAINED) > 0,
        "lost_km2": (flags & LOST) > 0,
        "unconfirmed_km2": (flags & UNCONFIRMED) > 0,
        "steep_km2": (flags & STEEP) > 0,
    }
    sums = xr.Dataset({name: found.sum(("y", "x")) * pixel for name, found in counts.items()}).compute()
    table = pd.DataFrame({name: sums[name].to_numpy() for name in counts})
    table.insert(0, "time", pd.DatetimeIndex(cube["time"].to_numpy()))
    turned = table["gained_km2"] + table["lost_km2"] + table["steep_km2"]
    return table.assign(share=(turned / table["seen_km2"]).where(table["seen_km2"] > 0))
