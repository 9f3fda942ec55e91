"""A user's own outlines or raster on the grid of a store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords  # noqa: F401 - registers the .odc accessor

from glaciercube.change.maps import grid_of
from glaciercube.errors import GridMismatchError, OutlineError
from glaciercube.region import crs_name, read_outlines

if TYPE_CHECKING:
    import geopandas as gpd

__all__ = ["Reference", "outline_reference", "raster_reference"]

BoolArray = npt.NDArray[np.bool_]
# Corners that differ by less than this share of a pixel are the same.
_ALIKE = 1e-3


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
    geobox = grid_of(cube)
    frame = read_outlines(outlines).to_crs(str(geobox.crs))
    numbers = _draw(frame, geobox)
    if not numbers.any():
        raise OutlineError(
            f"none of the {len(frame)} outlines meets the grid of the store "
            f"({', '.join(f'{v:.0f}' for v in geobox.boundingbox)} in {crs_name(geobox.crs)})",
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


def raster_reference(
    cube: xr.Dataset, path: str | Path, *, ice: Sequence[int] = (1,), nodata_is_ground: bool = False
) -> Reference:
    """Read a label raster that lies on a store's grid, or on a part or an extension of it.

    Parameters
    ----------
    cube : Dataset
        From `glaciercube.store.open_store`.
    path : str or Path
        Any raster of one band that GDAL reads, in the CRS of the store and on its pixels. Its nodata is not known.
    ice : sequence of int
        Values that are ice; all others are not.
    nodata_is_ground : bool
        Whether nodata is no ice, as in rasters that call their background nodata.

    Raises
    ------
    GridMismatchError
        If its CRS or its pixels are others than the store's, or it lies beside the store.
    OutlineError
        If it cannot be read, holds no ice, or, since its background is nodata, nothing that is known to be no ice.
    """
    import rasterio
    from rasterio.errors import RasterioError

    geobox = grid_of(cube)
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
    truth[here], known[here] = np.isin(band[there], list(ice)), valid[there] | nodata_is_ground
    if not (truth & known).any():
        held = ", ".join(f"{v:g}" for v in np.unique(band[there])[:8])
        wanted = ", ".join(map(str, ice))
        raise OutlineError(
            f"the raster {path} has no ice ({wanted}) on the grid of the store; it holds {held}",
            "say which of its values are ice",
        )
    if not (known & ~truth).any():
        raise OutlineError(
            f"nothing of the raster {path} is known not to be ice: its background is nodata",
            "say that its nodata is ground (--nodata-is-ground), or give its background a value",
        )
    return Reference(truth & known, known, None, {}, str(path))


def _draw(frame: gpd.GeoDataFrame, geobox: GeoBox) -> npt.NDArray[np.int32]:
    from rasterio.features import rasterize

    shapes = [(shape, i + 1) for i, shape in enumerate(frame.geometry)]
    drawn: npt.NDArray[np.int32] = rasterize(shapes, geobox.shape, transform=geobox.affine, fill=0, dtype="int32")
    return drawn


def _place_on_grid(geobox: GeoBox, crs: Any, affine: Any, path: str | Path) -> tuple[int, int]:
    """Row and column of the store where a raster begins."""
    pixel = abs(geobox.resolution.x)
    bounds = " ".join(f"{v:.10g}" for v in geobox.boundingbox)
    remedy = f"warp it: gdalwarp -r near -t_srs {crs_name(geobox.crs)} -tr {pixel:g} {pixel:g} -te {bounds} LABEL NEW"
    if crs is None or geobox.crs != crs:
        raise GridMismatchError(
            f"the raster {path} is in {crs_name(crs)}, and the store in {crs_name(geobox.crs)}", remedy
        )
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
