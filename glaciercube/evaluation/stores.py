"""A finished store beside a user's own outlines or raster, dates stated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords  # noqa: F401 - registers the .odc accessor

from glaciercube.errors import GridMismatchError, OutlineError, StoreError, require
from glaciercube.evaluation.cases import Case
from glaciercube.inference import QUALITY_BITS
from glaciercube.region import read_outlines

if TYPE_CHECKING:
    import geopandas as gpd

__all__ = ["Reference", "StoreCaseOptions", "outline_reference", "pairs_of", "raster_reference", "store_cases"]

BoolArray = npt.NDArray[np.bool_]
# Corners that differ by less than this share of a pixel are the same.
_ALIKE = 1e-3


@dataclass(frozen=True)
class StoreCaseOptions:
    """Which rows of a store are compared with a label, and which pixels.

    Attributes
    ----------
    dates : tuple of str
        Days whose rows are compared, such as ``("2021-08-14",)``; empty for all within `within` days of the label.
    within : float
        Days between image and label at most, where no dates are named.
    hidden_by : tuple of str
        Flags of `quality` under which a pixel is not compared.
    """

    dates: tuple[str, ...] = ()
    within: float = 45.0
    hidden_by: tuple[str, ...] = ("cloud", "cloud_shadow")

    def __post_init__(self) -> None:
        unknown = [name for name in self.hidden_by if name not in QUALITY_BITS]
        require(not unknown, f"unknown quality flag {unknown}", f"choose among {', '.join(QUALITY_BITS)}")
        for date in self.dates:
            _day(date)


@dataclass(frozen=True, eq=False)
class Reference:
    """A label on a store's grid.

    Attributes
    ----------
    truth, known : (y, x) bool
        Ice, and where that is known.
    glaciers : (y, x) int32 or None
        Number of the glacier, 0 for none.
    names : mapping of int to str
        Of the glaciers by number.
    source : str
        For people.
    """

    truth: BoolArray
    known: BoolArray
    glaciers: npt.NDArray[np.int32] | None
    names: Mapping[int, str]
    source: str


def outline_reference(
    cube: xr.Dataset, outlines: str | Path | gpd.GeoDataFrame, *, within: str | Path | gpd.GeoDataFrame | None = None
) -> Reference:
    """Draw outlines on a store's grid: a pixel is ice if its centre is inside one.

    Parameters
    ----------
    cube : Dataset
        From `glaciercube.store.open_store`.
    outlines : path or GeoDataFrame
        Glacier outlines in any CRS, which they must carry.
    within : path or GeoDataFrame or None
        Polygons inside which all glaciers are outlined; everywhere on the grid when left out.

    Raises
    ------
    OutlineError
        If there are none, they carry no CRS, or none meets the grid.
    """
    geobox = _geobox(cube)
    frame = read_outlines(outlines).to_crs(str(geobox.crs))
    numbers = _draw(frame, geobox)
    if not numbers.any():
        raise OutlineError(
            f"none of the {len(frame)} outlines meets the grid of the store "
            f"({', '.join(f'{v:.0f}' for v in geobox.boundingbox)} in {_named(geobox.crs)})",
            "give outlines of that place, or check their CRS",
        )
    known = np.ones(geobox.shape, bool)
    if within is not None:
        known = _draw(read_outlines(within).to_crs(str(geobox.crs)), geobox) > 0
        if not known.any():
            raise OutlineError("the ground that is known does not meet the grid of the store", "check its CRS")
    names = {i + 1: str(name) for i, name in enumerate(frame["outline"])}
    source = str(outlines) if isinstance(outlines, str | Path) else f"{len(frame)} outlines"
    return Reference(numbers > 0, known, numbers, names, source)


def raster_reference(cube: xr.Dataset, path: str | Path, *, ice: Sequence[int] = (1,)) -> Reference:
    """Read a label raster that lies on a store's grid, or on a part or an extension of it.

    Parameters
    ----------
    cube : Dataset
        From `glaciercube.store.open_store`.
    path : str or Path
        Any raster of one band that GDAL reads, in the CRS of the store and on its pixels. Its nodata is not known.
    ice : sequence of int
        Values that are ice; all others are not.

    Raises
    ------
    GridMismatchError
        If its CRS or its pixels are others than the store's, or it lies beside the store.
    OutlineError
        If it cannot be read, or holds no ice.
    """
    import rasterio
    from rasterio.errors import RasterioError

    geobox = _geobox(cube)
    try:
        with rasterio.open(path) as source:
            band, valid = source.read(1), source.read_masks(1) > 0
            crs, affine = source.crs, source.transform
    except RasterioError as error:
        raise OutlineError(f"cannot read the raster {path} ({error})", "give a GeoTIFF of labels") from error
    row, column = _place_on_grid(geobox, crs, affine, path)
    truth, known = np.zeros(geobox.shape, bool), np.zeros(geobox.shape, bool)
    here, there = _overlap(truth.shape, band.shape, row, column)
    if any(part.start >= part.stop for part in here):
        raise GridMismatchError(f"the raster {path} lies beside the store", "give a label of that place")
    truth[here], known[here] = np.isin(band[there], list(ice)), valid[there]
    if not (truth & known).any():
        held = ", ".join(f"{v:g}" for v in np.unique(band[there])[:8])
        wanted = ", ".join(map(str, ice))
        raise OutlineError(
            f"the raster {path} has no ice ({wanted}) on the grid of the store; it holds {held}",
            "say which of its values are ice",
        )
    return Reference(truth & known, known, None, {}, str(path))


def pairs_of(
    cube: xr.Dataset, label_date: str, options: StoreCaseOptions | None = None
) -> list[tuple[int, np.datetime64, float]]:
    """The rows of a store that are compared with a label of a date.

    Parameters
    ----------
    cube : Dataset
        From `glaciercube.store.open_store`.
    label_date : str
        Day that the label shows.
    options : StoreCaseOptions or None
        Which rows.

    Returns
    -------
    list of (int, datetime64[s], float)
        Row, its time (of a window, its middle), and days from the label's date to it.

    Raises
    ------
    StoreError
        If the store has no such row; it names the nearest.
    """
    options = options or StoreCaseOptions()
    day, times = _day(label_date), _times(cube)
    apart = (times - day).astype(np.float64) / 86400.0
    wanted = np.array([_day(date) for date in options.dates], "datetime64[D]")
    days = times.astype("datetime64[D]")
    chosen = np.isin(days, wanted) if options.dates else np.abs(apart) <= options.within
    lacking = [str(date) for date in wanted if date not in days]
    if lacking or not chosen.any():
        near = ", ".join(str(day) for day in days[np.argsort(np.abs(apart), kind="stable")[:3]])
        what = f"on {', '.join(lacking)}" if lacking else f"within {options.within:g} days of {label_date}"
        raise StoreError(
            f"the store has no image {what}",
            f"the nearest to the label are of {near or 'no date'}; name dates, or more days",
        )
    return [(int(i), times[i], float(apart[i])) for i in np.flatnonzero(chosen)]


def store_cases(
    cube: xr.Dataset, reference: Reference, label_date: str, options: StoreCaseOptions | None = None
) -> Iterator[Case]:
    """Set rows of a store beside a label.

    Parameters
    ----------
    cube : Dataset
        From `glaciercube.store.open_store`.
    reference : Reference
        From `outline_reference` or `raster_reference`.
    label_date : str
        Day that the label shows.
    options : StoreCaseOptions or None
        Which rows and pixels.

    Yields
    ------
    Case
        One per row, all of the name of the store's region.

    Raises
    ------
    StoreError
        If the store has no such row, or is not on a grid.
    """
    options = options or StoreCaseOptions()
    resolution = abs(float(_geobox(cube).resolution.x))
    bits = np.uint8(sum(QUALITY_BITS[name] for name in options.hidden_by))
    for row, time, _ in pairs_of(cube, label_date, options):
        loaded = cube[["glacier_probability", "quality"]].isel(time=row).compute()
        hidden = (loaded["quality"].to_numpy() & bits) > 0
        yield Case(
            name=str(cube.attrs.get("region", "store")),
            time=time,
            probability=loaded["glacier_probability"].to_numpy().astype(np.float32),
            truth=reference.truth,
            known=reference.known,
            counted=reference.known & ~hidden,
            resolution=resolution,
            glaciers=reference.glaciers,
            names=reference.names,
        )


def _geobox(cube: xr.Dataset) -> GeoBox:
    geobox = cube["glacier_probability"].odc.geobox if "glacier_probability" in cube else None
    if not isinstance(geobox, GeoBox) or geobox.crs is None:
        raise StoreError("the cube has no glacier_probability with a CRS", "give a store that glaciercube wrote")
    return geobox


def _times(cube: xr.Dataset) -> npt.NDArray[np.datetime64]:
    times = cube["time"].to_numpy()
    if "time_bnds" in cube.coords:
        bounds = cube["time_bnds"].to_numpy()
        times = bounds[:, 0] + (bounds[:, 1] - bounds[:, 0]) / 2
    return times.astype("datetime64[s]")


def _day(date: str) -> np.datetime64:
    try:
        return np.datetime64(pd.Timestamp(date).date(), "D")
    except ValueError as error:
        raise StoreError(f"{date!r} is no date", "write it as 2021-08-14") from error


def _draw(frame: gpd.GeoDataFrame, geobox: GeoBox) -> npt.NDArray[np.int32]:
    from rasterio.features import rasterize

    shapes = [(shape, i + 1) for i, shape in enumerate(frame.geometry)]
    drawn: npt.NDArray[np.int32] = rasterize(shapes, geobox.shape, transform=geobox.affine, fill=0, dtype="int32")
    return drawn


def _place_on_grid(geobox: GeoBox, crs: Any, affine: Any, path: str | Path) -> tuple[int, int]:
    """Row and column of the store where a raster begins."""
    pixel = abs(geobox.resolution.x)
    bounds = " ".join(f"{v:.10g}" for v in geobox.boundingbox)
    remedy = f"warp it: gdalwarp -r near -t_srs {_named(geobox.crs)} -tr {pixel:g} {pixel:g} -te {bounds} LABEL NEW"
    if crs is None or geobox.crs != crs:
        raise GridMismatchError(f"the raster {path} is in {_named(crs)}, and the store in {_named(geobox.crs)}", remedy)
    step = ~geobox.affine * affine
    unit = np.abs(np.array([step.a - 1, step.b, step.d, step.e - 1]))
    place = np.array([step.f, step.c])
    if (unit > _ALIKE).any() or (np.abs(place - place.round()) > _ALIKE).any():
        raise GridMismatchError(
            f"the raster {path} has pixels of {affine.a:g} x {affine.e:g} from {affine.c:.10g}, {affine.f:.10g}, which "
            f"are not those of the store ({pixel:g} from {geobox.affine.c:.10g}, {geobox.affine.f:.10g})",
            remedy,
        )
    row, column = place.round().astype(int)
    return int(row), int(column)


def _named(crs: Any) -> str:
    """A CRS by its number, which a sentence can hold."""
    number = crs.to_epsg() if crs is not None else None
    return f"EPSG:{number}" if number else "no CRS" if crs is None else "a CRS without an EPSG number"


def _overlap(
    grid: tuple[int, ...], band: tuple[int, ...], row: int, column: int
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """The part of a grid that a raster covers, and that part of the raster."""
    spans = [
        (max(0, start), min(full, start + part), start)
        for full, part, start in zip(grid, band, (row, column), strict=True)
    ]
    here = slice(*spans[0][:2]), slice(*spans[1][:2])
    there = slice(spans[0][0] - row, spans[0][1] - row), slice(spans[1][0] - column, spans[1][1] - column)
    return here, there
