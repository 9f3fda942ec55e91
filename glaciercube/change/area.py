"""Area series: how much of each outline is ice, date by date or year by year."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords  # noqa: F401 - registers the .odc accessor

from glaciercube.change.conformal import Calibration, find_calibration
from glaciercube.cube import MaskOptions, nan_median
from glaciercube.errors import OutlineError, StoreError, require
from glaciercube.inference import QUALITY_BITS
from glaciercube.region import read_outlines
from glaciercube.store import UNFINISHED, open_store, provenance_of

if TYPE_CHECKING:
    import geopandas as gpd

__all__ = ["COLUMNS", "AreaOptions", "area_series", "clear_maps", "regional_area"]

COLUMNS = (
    "outline",
    "time",
    "area_km2",
    "expected_area_km2",
    "lower_km2",
    "upper_km2",
    "doubt_km2",
    "coverage",
    "in_grid",
    "outline_area_km2",
    "dates",
)

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
        unknown = [name for name in self.hidden_by if name not in QUALITY_BITS]
        require(not unknown, f"unknown quality flag {unknown}", f"choose among {', '.join(QUALITY_BITS)}")


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
        calibration), ``doubt_km2`` (sum over clear pixels of the smaller of p and 1 - p), ``coverage`` (share of the
        outline that clear pixels show), ``in_grid`` (share that the grid covers), ``outline_area_km2``, ``dates``
        (rows that went in). Pixels count by their centre.

    Raises
    ------
    OutlineError
        If no outline meets the grid.
    StoreError
        If the store cannot be opened or has no grid.
    """
    if not isinstance(options, AreaOptions):
        options = AreaOptions(every=options or "observation")  # type: ignore[arg-type]
    cube = store if isinstance(store, xr.Dataset) else open_store(store)
    geobox = _geobox(cube)
    frame = read_outlines(outlines).to_crs(str(geobox.crs))
    rows = [row for index in range(len(frame)) for row in _one_outline(cube, geobox, frame.iloc[index], options)]
    if not rows:
        name = str(cube.attrs.get("region", "the store"))
        raise OutlineError(
            f"none of the {len(frame)} outlines meets the grid of {name} "
            f"({', '.join(f'{v:.0f}' for v in geobox.boundingbox)} in {geobox.crs})",
            "give outlines of that place, or check their CRS",
        )
    series = pd.DataFrame(rows).sort_values(["outline", "time"], ignore_index=True)
    unfinished = provenance_of(cube).get(UNFINISHED)
    if unfinished:
        text = f"{unfinished}: areas are of both, without an interval; `glaciercube run` finishes it"
        warnings.warn(text, UserWarning, stacklevel=2)
    calibration = calibration or _calibration_of(cube, geobox, options)
    if calibration is None or unfinished:
        return series.assign(lower_km2=np.nan, upper_km2=np.nan)[list(COLUMNS)]
    return calibration.interval(series, options.level)[list(COLUMNS)]


def regional_area(series: pd.DataFrame) -> pd.DataFrame:
    """Sum an area series over its outlines.

    Bounds are summed too, as if all outlines erred together: errors within a scene are not independent, and this is
    the cautious end.

    Parameters
    ----------
    series : DataFrame
        From `area_series`.

    Returns
    -------
    DataFrame
        Per time: ``area_km2``, ``expected_area_km2``, ``lower_km2``, ``upper_km2``, ``outline_area_km2`` (sums) and
        ``coverage`` (share of all outlines' area).
    """
    sums = ["area_km2", "expected_area_km2", "lower_km2", "upper_km2", "outline_area_km2"]
    seen = series.assign(seen=series["coverage"] * series["outline_area_km2"])
    total = seen.groupby("time")[[*sums, "seen"]].sum(min_count=1).reset_index()
    return total.assign(coverage=total["seen"] / total["outline_area_km2"]).drop(columns="seen")


def _calibration_of(cube: xr.Dataset, geobox: GeoBox, options: AreaOptions) -> Calibration | None:
    made = provenance_of(cube)
    if not {"model_hash", "modalities", "compose"} <= set(made) or made["compose"] != "observation":
        return None
    plain = AreaOptions(every=options.every, level=options.level)
    found = find_calibration(made["model_hash"], made["modalities"], options.every)
    if found is None or options != plain:
        return None
    low, high = found.resolution
    same = found.reflectance == made.get("reflectance", "") or "optical" not in made["modalities"]
    # Masks other than those by default hide other pixels than the calibration saw.
    usual = json.dumps(asdict(MaskOptions()), sort_keys=True)
    same = same and made.get("mask", usual) == usual
    return found if same and low <= abs(geobox.resolution.x) <= high else None


def _geobox(cube: xr.Dataset) -> GeoBox:
    geobox = cube["glacier_probability"].odc.geobox if "glacier_probability" in cube else None
    if not isinstance(geobox, GeoBox) or geobox.crs is None:
        raise StoreError("the cube has no glacier_probability with a CRS", "give a store that glaciercube wrote")
    return geobox


def _one_outline(cube: xr.Dataset, geobox: GeoBox, outline: Any, options: AreaOptions) -> Iterator[dict[str, Any]]:
    window = _window(outline.geometry, geobox)
    if window is None:
        return
    inside = _mask(outline.geometry, geobox[window])
    if not inside.any():
        return
    pixel = abs(geobox.resolution.x * geobox.resolution.y) / 1e6
    full = outline.geometry.area / 1e6
    here = cube[["glacier_probability", "quality"]].isel(y=window[0], x=window[1])
    for time, found, dates in clear_maps(here, options):
        probability = found[inside]
        clear = np.isfinite(probability)
        yield {
            "outline": outline["outline"],
            "time": time,
            "area_km2": float((probability > options.threshold).sum() * pixel),
            "expected_area_km2": float(np.nansum(probability) * pixel),
            "doubt_km2": float(np.nansum(np.minimum(probability, 1 - probability)) * pixel),
            # Pixels count by their centre, so that a small outline may seem a little more than seen.
            "coverage": min(float(clear.sum() * pixel / full), 1.0),
            "in_grid": min(float(inside.sum() * pixel / full), 1.0),
            "outline_area_km2": full,
            "dates": dates,
        }


def clear_maps(here: xr.Dataset, options: AreaOptions) -> Iterator[tuple[pd.Timestamp, npt.NDArray[np.float64], int]]:
    """Probability as areas see it: NaN where no clear pixel shows the ground.

    Parameters
    ----------
    here : Dataset
        With ``glacier_probability`` and ``quality`` (time, y, x).
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
    years = _years(here)
    for year in sorted(set(years)):
        index = np.flatnonzero(years == year)
        yield pd.Timestamp(int(year), 1, 1), nan_median(_clear(here.isel(time=index), options), axis=0), len(index)


def _years(here: xr.Dataset) -> npt.NDArray[np.int64]:
    """Calendar year of each row; of a window, that of its middle."""
    times = here["time"].to_numpy()
    if "time_bnds" in here.coords:
        bounds = here["time_bnds"].to_numpy()
        times = bounds[:, 0] + (bounds[:, 1] - bounds[:, 0]) / 2
    return pd.DatetimeIndex(times).year.to_numpy().astype(np.int64)


def _clear(part: xr.Dataset, options: AreaOptions) -> npt.NDArray[np.float64]:
    loaded = part.compute()
    bits = sum(QUALITY_BITS[name] for name in options.hidden_by)
    hidden = (loaded["quality"].to_numpy() & np.uint8(bits)) > 0
    return np.where(hidden, np.nan, loaded["glacier_probability"].to_numpy())


def _window(geometry: Any, geobox: GeoBox) -> tuple[slice, slice] | None:
    left, bottom, right, top = geometry.bounds
    inverse = ~geobox.affine
    columns, rows = zip(*(inverse @ corner for corner in ((left, top), (right, bottom))), strict=True)
    height, width = geobox.shape
    x = slice(max(int(np.floor(min(columns))), 0), min(int(np.ceil(max(columns))), width))
    y = slice(max(int(np.floor(min(rows))), 0), min(int(np.ceil(max(rows))), height))
    return (y, x) if y.start < y.stop and x.start < x.stop else None


def _mask(geometry: Any, geobox: GeoBox) -> npt.NDArray[np.bool_]:
    from rasterio.features import geometry_mask

    mask: npt.NDArray[np.bool_] = geometry_mask([geometry], geobox.shape, geobox.affine, invert=True)
    return mask
