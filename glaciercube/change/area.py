"""Area series: how much of each outline is ice, date by date or year by year."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr
from odc.geo.geobox import GeoBox

from glaciercube.change.calibration_file import find_calibration
from glaciercube.change.conformal import Calibration, Quantity
from glaciercube.change.correlation import ErrorCorrelation, area_std
from glaciercube.change.maps import AreaOptions, clear_maps, grid_of, mask_of, window_of
from glaciercube.change.terrain import warn_of_terrain
from glaciercube.cube import MaskOptions
from glaciercube.errors import OutlineError
from glaciercube.region import crs_name, read_outlines
from glaciercube.store import UNFINISHED, open_store, provenance_of

if TYPE_CHECKING:
    import geopandas as gpd

__all__ = ["COLUMNS", "AreaOptions", "area_series", "calibration_of", "clear_maps", "open_cube", "outlines_on"]

COLUMNS = (
    "outline",
    "time",
    "area_km2",
    "expected_area_km2",
    "lower_km2",
    "upper_km2",
    "std_km2",
    "doubt_km2",
    "coverage",
    "in_grid",
    "outline_area_km2",
    "dates",
)


def area_series(
    store: str | Path | xr.Dataset,
    outlines: str | Path | gpd.GeoDataFrame,
    options: AreaOptions | str | None = None,
    *,
    calibration: Calibration | None = None,
) -> pd.DataFrame:
    """Ice area of each outline through time.

    Parameters
    ----------
    store : path or Dataset
        A probability store, or what `open_store` or `predict` gave.
    outlines : path or GeoDataFrame
        Glacier outlines in any CRS; ice outside them is not counted.
    options : AreaOptions or str or None
        Dates or years, threshold, masks; a string stands for ``AreaOptions(every=...)``.
    calibration : Calibration or None
        For the interval; the one shipped for the store's model and inputs when None. That is used only where the
        threshold, the masks, the reflectance and the pixel size are those that it was measured with. None is used, and
        a warning says so, while shards of another model or of other options are still in the store.

    Returns
    -------
    DataFrame
        Per outline and time: ``area_km2`` (clear pixels above the threshold), ``expected_area_km2`` (sum of
        probability over clear pixels), ``lower_km2`` and ``upper_km2`` (interval of ``area_km2``, NaN without a
        calibration), ``std_km2`` (standard deviation of the error of ``expected_area_km2``, of correlated pixels; NaN
        where the correlation was not measured), ``doubt_km2`` (sum over clear pixels of the smaller of p and 1 - p),
        ``coverage`` (share of the outline that clear pixels show), ``in_grid`` (share that the grid covers),
        ``outline_area_km2``, ``dates`` (rows that went in). Pixels count by their centre.

    Raises
    ------
    OutlineError
        If no outline meets the grid.
    StoreError
        If the store cannot be opened or has no grid.

    Warns
    -----
    TerrainWarning
        If there are several times, and the maps were made with terrain by a model that hides change under it or was not
        measured (see `glaciercube.change.terrain`): each area is as good as it gets, their differences are not.
    """
    if not isinstance(options, AreaOptions):
        options = AreaOptions(every=options or "observation")  # type: ignore[arg-type]
    cube = open_cube(store)
    geobox, frame = outlines_on(cube, outlines)
    calibration = calibration or calibration_of(cube, geobox, options)
    correlation = calibration.pixel_correlation if calibration else None
    rows = [
        row
        for index in range(len(frame))
        for row in _one_outline(cube, geobox, frame.iloc[index], options, correlation)
    ]
    series = pd.DataFrame(rows).sort_values(["outline", "time"], ignore_index=True)
    if series["time"].nunique() > 1:
        warn_of_terrain(cube)
    unfinished = provenance_of(cube).get(UNFINISHED)
    if unfinished:
        text = f"{unfinished}: areas are of both, without an interval; `glaciercube run` finishes it"
        warnings.warn(text, UserWarning, stacklevel=2)
    if calibration is None or unfinished:
        return series.assign(lower_km2=np.nan, upper_km2=np.nan, std_km2=np.nan)[list(COLUMNS)]
    found = calibration.interval(series, options.level)[list(COLUMNS)]
    found.attrs["scene_correlation"] = calibration.correlation
    return found


def open_cube(store: str | Path | xr.Dataset) -> xr.Dataset:
    """A store's dataset, or the dataset that was given."""
    return store if isinstance(store, xr.Dataset) else open_store(store)


def outlines_on(cube: xr.Dataset, outlines: str | Path | gpd.GeoDataFrame) -> tuple[GeoBox, gpd.GeoDataFrame]:
    """A cube's grid, and the outlines that meet it, in its CRS.

    Raises
    ------
    OutlineError
        If none does.
    """
    geobox = grid_of(cube)
    frame = read_outlines(outlines).to_crs(str(geobox.crs))
    windows = [window_of(geometry, geobox) for geometry in frame.geometry]
    met = [
        window is not None and bool(mask_of(geometry, geobox[window]).any())
        for geometry, window in zip(frame.geometry, windows, strict=True)
    ]
    if not any(met):
        name = str(cube.attrs.get("region", "the store"))
        raise OutlineError(
            f"none of the {len(frame)} outlines meets the grid of {name} "
            f"({', '.join(f'{v:.0f}' for v in geobox.boundingbox)} in {crs_name(geobox.crs)})",
            "give outlines of that place, or check their CRS",
        )
    return geobox, frame[met]


def calibration_of(
    cube: xr.Dataset, geobox: GeoBox, options: AreaOptions, quantity: Quantity = "area"
) -> Calibration | None:
    """The calibration that comes with the package for a cube's model and inputs, where all is as it was measured."""
    made = provenance_of(cube)
    if not {"model_hash", "modalities", "compose"} <= set(made) or made["compose"] != "observation":
        return None
    plain = AreaOptions(every=options.every, level=options.level)
    found = find_calibration(made["model_hash"], made["modalities"], options.every, quantity)
    if found is None or options != plain:
        return None
    low, high = found.resolution
    same = found.reflectance in ("either", made.get("reflectance", "")) or "optical" not in made["modalities"]
    # Masks other than those by default hide other pixels than the calibration saw.
    usual = json.dumps(asdict(MaskOptions()), sort_keys=True)
    same = same and made.get("mask", usual) == usual
    return found if same and low <= abs(geobox.resolution.x) <= high else None


def _one_outline(
    cube: xr.Dataset, geobox: GeoBox, outline: Any, options: AreaOptions, correlation: ErrorCorrelation | None
) -> Iterator[dict[str, Any]]:
    window = window_of(outline.geometry, geobox)
    if window is None:
        return
    inside = mask_of(outline.geometry, geobox[window])
    side = abs(geobox.resolution.x)
    pixel = abs(geobox.resolution.x * geobox.resolution.y) / 1e6
    full = outline.geometry.area / 1e6
    here = cube.isel(y=window[0], x=window[1])
    for time, found, dates in clear_maps(here, options):
        probability = found[inside]
        clear = np.isfinite(probability)
        yield {
            "outline": outline["outline"],
            "time": time,
            "area_km2": float((probability > options.threshold).sum() * pixel),
            "expected_area_km2": float(np.nansum(probability) * pixel),
            "std_km2": np.nan if correlation is None else area_std(found, side, correlation, inside),
            "doubt_km2": float(np.nansum(np.minimum(probability, 1 - probability)) * pixel),
            # Pixels count by their centre, so that a small outline may seem a little more than seen.
            "coverage": min(float(clear.sum() * pixel / full), 1.0),
            "in_grid": min(float(inside.sum() * pixel / full), 1.0),
            "outline_area_km2": full,
            "dates": dates,
        }
