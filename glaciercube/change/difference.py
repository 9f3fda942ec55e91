"""Change of area between two times, with an interval of its own.

An interval of a change is not the difference of two intervals: what a model gets wrong on a glacier, it mostly gets
wrong both times. Errors of change are measured as such on the calibration glaciers.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr
from odc.geo.geobox import GeoBox

from glaciercube.change.area import AreaOptions, calibration_of, open_cube, outlines_on
from glaciercube.change.conformal import Calibration
from glaciercube.change.maps import clear_maps, mask_of, window_of
from glaciercube.change.terrain import check_terrain
from glaciercube.errors import StoreError, require
from glaciercube.region.sun import DAYS_PER_YEAR
from glaciercube.store import UNFINISHED, provenance_of

if TYPE_CHECKING:
    import geopandas as gpd

__all__ = ["CHANGE_COLUMNS", "area_change"]

CHANGE_COLUMNS = (
    "outline",
    "first",
    "last",
    "change_km2",
    "lower_km2",
    "upper_km2",
    "rate_km2_per_year",
    "lower_rate",
    "upper_rate",
    "first_area_km2",
    "doubt_km2",
    "coverage",
    "in_grid",
    "outline_area_km2",
)


def area_change(
    store: str | Path | xr.Dataset,
    outlines: str | Path | gpd.GeoDataFrame,
    first: int | str | pd.Timestamp,
    last: int | str | pd.Timestamp,
    options: AreaOptions | None = None,
    *,
    calibration: Calibration | None = None,
    allow_terrain: bool = False,
) -> pd.DataFrame:
    """Change of the ice area of each outline from one time to another, over the pixels that both show.

    Parameters
    ----------
    store : path or Dataset
        A probability store, or what `open_store` or `predict` gave.
    outlines : path or GeoDataFrame
        Glacier outlines in any CRS.
    first, last : int, str or Timestamp
        Years, if areas are read every year; else times, of which the nearest rows are taken.
    options : AreaOptions or None
        By default years.
    calibration : Calibration or None
        Of ``quantity="change"``; the one shipped for the store's model and inputs when None, used as in `area_series`.
    allow_terrain : bool
        Compare maps that were made with terrain also where their model is known to hide change under it.

    Returns
    -------
    DataFrame
        Per outline: ``first``, ``last`` (times), ``change_km2`` (clear pixels above the threshold, later less earlier),
        ``lower_km2`` and ``upper_km2`` (its interval, NaN without a calibration; ground that is not clear both times
        may have lost or won all of its ice), ``rate_km2_per_year``, ``lower_rate`` and ``upper_rate`` (the same per
        year), ``first_area_km2`` (of the pixels clear both times), ``doubt_km2`` (of both times), ``coverage`` (share
        of the outline that is clear both times), ``in_grid``, ``outline_area_km2``.

    Raises
    ------
    OutlineError
        If no outline meets the grid.
    StoreError
        If a time is none, the store has no such year, or the two times are one; or if the maps were made with terrain,
        with which their model detects too little of a loss (see `glaciercube.change.terrain`), unless that is allowed.

    Warns
    -----
    TerrainWarning
        If that is allowed, or the maps were made with terrain by a model that was not measured.
    """
    options = options or AreaOptions(every="year")
    cube = open_cube(store)
    check_terrain(cube, allow=allow_terrain)
    geobox, frame = outlines_on(cube, outlines)
    rows = [_one_change(cube, geobox, frame.iloc[index], options, first, last) for index in range(len(frame))]
    table = pd.DataFrame(rows).sort_values("outline", ignore_index=True)
    unfinished = provenance_of(cube).get(UNFINISHED)
    if unfinished:
        text = f"{unfinished}: changes are of both, without an interval; `glaciercube run` finishes it"
        warnings.warn(text, UserWarning, stacklevel=2)
    calibration = calibration or calibration_of(cube, geobox, options, "change")
    if calibration is None or unfinished:
        table = table.assign(lower_km2=np.nan, upper_km2=np.nan)
    else:
        require(
            calibration.quantity == "change",
            "a calibration of areas says nothing of changes",
            "give one with quantity='change'",
        )
        table = calibration.change_interval(table, options.level)
    years = (table["last"] - table["first"]).dt.total_seconds() / 86400 / DAYS_PER_YEAR
    rates = {"rate_km2_per_year": "change_km2", "lower_rate": "lower_km2", "upper_rate": "upper_km2"}
    found = table.assign(**{rate: table[of] / years for rate, of in rates.items()})[list(CHANGE_COLUMNS)]
    if calibration is not None:
        found.attrs["scene_correlation"] = calibration.correlation
    return found


def _one_change(
    cube: xr.Dataset, geobox: GeoBox, outline: Any, options: AreaOptions, first: Any, last: Any
) -> dict[str, Any]:
    window = window_of(outline.geometry, geobox)
    require(window is not None, "the outline does not meet the grid", "choose those that do")
    inside = mask_of(outline.geometry, geobox[window])
    here = cube.isel(y=window[0], x=window[1])  # type: ignore[index]
    (early, before), (late, after) = (_map_of(here, options, when) for when in (first, last))
    if early >= late:
        raise StoreError(f"the change is from {early:%Y-%m-%d} to {late:%Y-%m-%d}", "give an earlier and a later time")
    pixel = abs(geobox.resolution.x * geobox.resolution.y) / 1e6
    full = outline.geometry.area / 1e6
    clear = inside & np.isfinite(before) & np.isfinite(after)
    earlier, later = before[clear], after[clear]
    areas = [float((p > options.threshold).sum() * pixel) for p in (earlier, later)]
    return {
        "outline": outline["outline"],
        "first": early,
        "last": late,
        "change_km2": areas[1] - areas[0],
        "first_area_km2": areas[0],
        "doubt_km2": float(sum(np.minimum(p, 1 - p).sum() for p in (earlier, later)) * pixel),
        "coverage": min(float(clear.sum() * pixel / full), 1.0),
        "in_grid": min(float(inside.sum() * pixel / full), 1.0),
        "outline_area_km2": full,
    }


def _map_of(here: xr.Dataset, options: AreaOptions, when: Any) -> tuple[pd.Timestamp, npt.NDArray[np.float64]]:
    """The map of a year, or of the row nearest to a time."""
    if options.every == "year":
        if not str(when).isdecimal():
            raise StoreError(f"{when} is no year", "give years, or read areas every observation")
        for time, probability, _ in clear_maps(here, options):
            if time.year == int(when):
                return time, probability
        raise StoreError(f"the store has no row of {when}", "give a year that it has")
    nearest = here.sel(time=[_time_of(when)], method="nearest")
    time, probability, _ = next(clear_maps(nearest, options))
    return time, probability


def _time_of(when: Any) -> pd.Timestamp:
    """The time that a text, a year or a time says, in UTC as those of the store."""
    try:
        # A number is a year, and not pandas' nanoseconds since 1970.
        time = pd.Timestamp(str(when) if isinstance(when, int) else when)
    except (ValueError, TypeError) as error:
        raise StoreError(f"{when!r} is no date", "write it as 2021-08-14") from error
    if pd.isna(time):
        raise StoreError(f"{when!r} is no date", "write it as 2021-08-14")
    return time if time.tzinfo is None else time.tz_convert("UTC").tz_localize(None)
