"""Probability as areas see it: which pixels count, date by date or year by year, and inside which outline."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords  # noqa: F401 - registers the .odc accessor

from glaciercube.change.rows import check_flags, hidden, middles
from glaciercube.cube import nan_median
from glaciercube.errors import StoreError, require

__all__ = ["AreaOptions", "clear_maps", "grid_of", "mask_of", "window_of"]

# Dates held in memory at a time.
_BATCH = 16


@dataclass(frozen=True)
class AreaOptions:
    """How areas are read from a store.

    Attributes
    ----------
    every : str
        ``"observation"``: each row of the store. ``"year"``: per pixel the median of the calendar year's clear
        probabilities; a window belongs to the year of its middle.
    threshold : float
        Probability above which a pixel counts as ice in ``area_km2``.
    hidden_by : tuple of str
        Flags of `quality` under which a pixel does not count as seen.
    level : float
        Coverage of the interval.
    """

    every: Literal["observation", "year"] = "observation"
    threshold: float = 0.5
    hidden_by: tuple[str, ...] = ("cloud", "cloud_shadow")
    level: float = 0.9

    def __post_init__(self) -> None:
        known = ("observation", "year")
        require(self.every in known, f"areas cannot be read every {self.every!r}", f"choose {' or '.join(known)}")
        check_flags(self.hidden_by)


def clear_maps(here: xr.Dataset, options: AreaOptions) -> Iterator[tuple[pd.Timestamp, npt.NDArray[np.float64], int]]:
    """Probability as areas see it: NaN where no clear pixel shows the ground.

    Parameters
    ----------
    here : Dataset
        With ``glacier_probability`` and ``quality`` (time, y, x), and of windows the coordinate ``time_bnds``: give it
        whole, since xarray drops that one where variables are picked.
    options : AreaOptions
        Dates or years, and which flags hide a pixel.

    Yields
    ------
    time : Timestamp
        Of the row, or the first of January of the year.
    probability : (y, x) float64
        0 to 1, NaN where hidden or missing.
    dates : int
        Rows that went in.
    """
    times = pd.DatetimeIndex(here["time"].to_numpy())
    if options.every == "observation":
        for start in range(0, len(times), _BATCH):
            part = slice(start, start + _BATCH)
            for time, clear in zip(times[part], _clear(here.isel(time=part), options), strict=True):
                yield time, clear, 1
        return
    years = pd.DatetimeIndex(middles(here)).year
    for year in sorted(set(years)):
        index = np.flatnonzero(years == year)
        yield pd.Timestamp(int(year), 1, 1), nan_median(_clear(here.isel(time=index), options), axis=0), len(index)


def _clear(part: xr.Dataset, options: AreaOptions) -> npt.NDArray[np.float64]:
    loaded = part[["glacier_probability", "quality"]].compute()
    unseen = hidden(loaded["quality"].to_numpy(), options.hidden_by)
    return np.where(unseen, np.nan, loaded["glacier_probability"].to_numpy())


def window_of(geometry: Any, geobox: GeoBox) -> tuple[slice, slice] | None:
    """Rows and columns of a grid that a geometry's bounds meet; None if they meet none."""
    left, bottom, right, top = geometry.bounds
    inverse = ~geobox.affine
    columns, rows = zip(*(inverse @ corner for corner in ((left, top), (right, bottom))), strict=True)
    height, width = geobox.shape
    x = slice(max(int(np.floor(min(columns))), 0), min(int(np.ceil(max(columns))), width))
    y = slice(max(int(np.floor(min(rows))), 0), min(int(np.ceil(max(rows))), height))
    return (y, x) if y.start < y.stop and x.start < x.stop else None


def mask_of(geometry: Any, geobox: GeoBox) -> npt.NDArray[np.bool_]:
    """Pixels of a grid whose centre lies in a geometry, (y, x) bool."""
    from rasterio.features import geometry_mask

    mask: npt.NDArray[np.bool_] = geometry_mask([geometry], geobox.shape, geobox.affine, invert=True)
    return mask


def grid_of(cube: xr.Dataset) -> GeoBox:
    """Grid of a cube's probability.

    Raises
    ------
    StoreError
        If it has none.
    """
    geobox = cube["glacier_probability"].odc.geobox if "glacier_probability" in cube else None
    if not isinstance(geobox, GeoBox) or geobox.crs is None:
        raise StoreError("the cube has no glacier_probability with a CRS", "give a store that glaciercube wrote")
    return geobox
