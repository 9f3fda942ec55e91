"""Areas of whole regions, whose glaciers do not err independently."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import xarray as xr

from glaciercube.change.area import AreaOptions, calibration_of, open_cube, outlines_on
from glaciercube.change.correlation import ErrorCorrelation, area_std
from glaciercube.change.maps import clear_maps, mask_of
from glaciercube.errors import ModelError, require
from glaciercube.region.sun import DAYS_PER_YEAR

if TYPE_CHECKING:
    import geopandas as gpd

__all__ = ["regional_area", "regional_change", "regional_std"]

_BOUNDS = ("down", "up", "down2", "up2")


def regional_area(series: pd.DataFrame, *, correlation: float | None = None) -> pd.DataFrame:
    """Sum an area series over its outlines.

    The distances of the bounds from the areas, h, are summed as deviations of errors of which any two have the same
    correlation r: ``sqrt((1 - r) * sum(h**2) + r * sum(h)**2)``. With r = 1 bounds are summed plainly, which is the
    cautious end; r is that of two glaciers of one scene, so that for a region of several scenes it is cautious still.
    What no clear pixel shows may be ice or none on all outlines together: its share of the bounds is summed plainly.

    Parameters
    ----------
    series : DataFrame
        From `area_series`.
    correlation : float, optional
        Of the errors of two outlines, 0 to 1; when left out, that of the calibration that the bounds were made with, or
        1 where it is not known.

    Returns
    -------
    DataFrame
        Per time: ``area_km2``, ``expected_area_km2``, ``outline_area_km2`` (sums), ``lower_km2``, ``upper_km2``, and
        ``coverage`` (share of all outlines' area).
    """
    sums = ["area_km2", "expected_area_km2", "outline_area_km2"]
    total = _summed(series, "time", "area_km2", sums, _shared(series, correlation))
    kept = ["time", "area_km2", "expected_area_km2", "lower_km2", "upper_km2", "outline_area_km2", "coverage"]
    return total[kept]


def regional_change(table: pd.DataFrame, *, correlation: float | None = None) -> pd.DataFrame:
    """Sum changes of area over their outlines, as `regional_area` sums areas.

    Parameters
    ----------
    table : DataFrame
        From `area_change`.
    correlation : float, optional
        As of `regional_area`.

    Returns
    -------
    DataFrame
        One row: ``first``, ``last``, ``change_km2``, ``lower_km2``, ``upper_km2``, ``first_area_km2`` and
        ``outline_area_km2`` (sums), ``rate_km2_per_year``, ``lower_rate``, ``upper_rate`` and ``coverage``.
    """
    sums = ["change_km2", "first_area_km2", "outline_area_km2"]
    total = _summed(table, ["first", "last"], "change_km2", sums, _shared(table, correlation))
    years = (total["last"] - total["first"]).dt.total_seconds() / (86400 * DAYS_PER_YEAR)
    rates = {"rate_km2_per_year": "change_km2", "lower_rate": "lower_km2", "upper_rate": "upper_km2"}
    total = total.assign(**{rate: total[of] / years for rate, of in rates.items()})
    return total[["first", "last", *sums[:1], "lower_km2", "upper_km2", *rates, *sums[1:], "coverage"]]


def _shared(table: pd.DataFrame, correlation: float | None) -> float:
    shared = float(table.attrs.get("scene_correlation", 1.0)) if correlation is None else correlation
    require(0 <= shared <= 1, f"a correlation of {shared}", "give 0 to 1")
    return shared


def _summed(table: pd.DataFrame, by: str | list[str], value: str, sums: list[str], shared: float) -> pd.DataFrame:
    """Sums over outlines, with bounds whose distances from the value are summed as correlated deviations."""
    seen = table["coverage"] * table["outline_area_km2"]
    hidden = (table["outline_area_km2"] * table["in_grid"] - seen).clip(lower=0)
    # Hidden ground adds to an area, or nothing; its change may be of either sign.
    below = hidden if value == "change_km2" else 0 * hidden
    down = (table[value] - table["lower_km2"] - below).clip(lower=0)
    up = (table["upper_km2"] - table[value] - hidden).clip(lower=0)
    own = {"seen": seen, "above": hidden, "below": below, "down": down, "up": up, "down2": down**2, "up2": up**2}
    # Where no interval is known the sum has none.
    own = {name: part.where(table["lower_km2"].notna()) if name in _BOUNDS else part for name, part in own.items()}
    total = table.assign(**own).groupby(by)[[*sums, *own]].sum(min_count=1).reset_index()
    for bound, sign, side, far in (("lower_km2", -1, "down", "below"), ("upper_km2", 1, "up", "above")):
        joined = ((1 - shared) * total[f"{side}2"] + shared * total[side] ** 2) ** 0.5
        total[bound] = total[value] + sign * (joined + total[far])
    return total.assign(coverage=total["seen"] / total["outline_area_km2"])


def regional_std(
    store: str | Path | xr.Dataset,
    outlines: str | Path | gpd.GeoDataFrame,
    options: AreaOptions | None = None,
    *,
    correlation: ErrorCorrelation | None = None,
) -> pd.DataFrame:
    """Standard deviation of the error of the expected area of all outlines together, by the distance of their pixels.

    Glaciers that lie near each other err together, those far apart less: see `glaciercube.change.correlation`. The grid
    of one date is held in memory.

    Parameters
    ----------
    store : path or Dataset
        A probability store, or what `open_store` or `predict` gave.
    outlines : path or GeoDataFrame
        Glacier outlines in any CRS.
    options : AreaOptions or None
        Dates or years, and masks.
    correlation : ErrorCorrelation, optional
        Of the errors of pixels; that of the shipped calibration of the store's model and inputs when left out.

    Returns
    -------
    DataFrame
        Per time: ``expected_area_km2``, ``std_km2``, and ``independent_std_km2``, what it would be if each glacier
        erred for itself.

    Raises
    ------
    ModelError
        If no correlation is given or known.
    """
    options = options or AreaOptions()
    cube = open_cube(store)
    geobox, frame = outlines_on(cube, outlines)
    if correlation is None:
        calibration = calibration_of(cube, geobox, options)
        correlation = calibration.pixel_correlation if calibration else None
    if correlation is None:
        raise ModelError(
            "the correlation of this model's errors was not measured",
            "fit it with glaciercube.change.correlation.fit_correlation to scenes of known truth",
        )
    masks = [mask_of(geometry, geobox) for geometry in frame.geometry]
    inside, side = np.any(masks, axis=0), abs(geobox.resolution.x)
    rows = []
    for time, probability, _ in clear_maps(cube, options):
        each = [area_std(probability, side, correlation, mask) for mask in masks]
        rows.append(
            {
                "time": time,
                "expected_area_km2": float(np.nansum(probability[inside])) * side**2 / 1e6,
                "std_km2": area_std(probability, side, correlation, inside),
                "independent_std_km2": float(np.sqrt(np.sum(np.square(each)))),
            }
        )
    return pd.DataFrame(rows)
