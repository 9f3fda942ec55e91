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

if TYPE_CHECKING:
    import geopandas as gpd

__all__ = ["regional_area", "regional_std"]


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
    shared = float(series.attrs.get("scene_correlation", 1.0)) if correlation is None else correlation
    require(0 <= shared <= 1, f"a correlation of {shared}", "give 0 to 1")
    seen = series["coverage"] * series["outline_area_km2"]
    hidden = (series["outline_area_km2"] * series["in_grid"] - seen).clip(lower=0)
    down = series["area_km2"] - series["lower_km2"]
    up = (series["upper_km2"] - series["area_km2"] - hidden).clip(lower=0)
    parts = series.assign(seen=seen, hidden=hidden, down=down, up=up, down2=down**2, up2=up**2)
    sums = ["area_km2", "expected_area_km2", "outline_area_km2", "seen", "hidden", "down", "up", "down2", "up2"]
    total = parts.groupby("time")[sums].sum(min_count=1).reset_index()

    def joined(name: str) -> pd.Series[float]:
        return ((1 - shared) * total[f"{name}2"] + shared * total[name] ** 2) ** 0.5

    total["lower_km2"] = total["area_km2"] - joined("down")
    total["upper_km2"] = total["area_km2"] + joined("up") + total["hidden"]
    total["coverage"] = total["seen"] / total["outline_area_km2"]
    kept = ["time", "area_km2", "expected_area_km2", "lower_km2", "upper_km2", "outline_area_km2", "coverage"]
    return total[kept]


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
    for time, probability, _ in clear_maps(cube[["glacier_probability", "quality"]], options):
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
