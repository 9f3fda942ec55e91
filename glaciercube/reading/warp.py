"""One file onto one cell of the grid: which overview is read, and how it is warped."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
import rasterio.warp
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling

__all__ = ["OVERVIEW_TOLERANCE", "choose_overview", "overview_factor", "warp_onto"]

#: An overview may be coarser than the grid by this share: map scales differ by about as much between zones.
OVERVIEW_TOLERANCE = 0.02

# Reduced levels of JPEG 2000 are wavelets, which mix the numbers of classes.
_WAVELETS = "JP2"


def warp_onto(
    path: str | Callable[[], Any],
    geobox: GeoBox,
    *,
    resampling: str,
    dtype: npt.DTypeLike,
    nodata: float,
    band: int = 1,
) -> npt.NDArray[Any]:
    """Read a file onto a geobox: ``rasterio.warp.reproject`` of one of its overviews, and nothing else.

    Nothing is pasted, shifted or cut before, so that the answer depends on the file and on the geobox alone. GDAL's
    warp depends on the geobox as a whole (it interpolates coordinates along its rows), which is why the cube asks
    for whole cells of one lattice.

    Parameters
    ----------
    path : str or callable
        What GDAL opens; or a function that gives it anew each time, as a `rasterio.io.FilePath` is good for once.
    geobox : GeoBox
        Where the pixels go, usually one cell of the lattice.
    resampling : str
        GDAL's name of the method.
    dtype : dtype
        dtype of the pixels that are returned.
    nodata : float
        Their value where the file has no data. It also marks missing pixels of a file that does not say how it does.
    band : int
        Which band of the file, from 1.

    Returns
    -------
    ndarray (y, x)
        Stored pixels.

    Raises
    ------
    rasterio.errors.RasterioError
        If the file cannot be opened or read.
    """
    with rasterio.open(path() if callable(path) else path, sharing=False) as source:
        level = _level(source, geobox, resampling, band)
        if level is None:
            return _reproject(source, geobox, resampling, np.dtype(dtype), nodata, band)
    with rasterio.open(path() if callable(path) else path, sharing=False, overview_level=level) as coarse:
        return _reproject(coarse, geobox, resampling, np.dtype(dtype), nodata, band)


def overview_factor(source: rasterio.DatasetReader, geobox: GeoBox) -> float:
    """How many of a file's pixels one pixel of the grid spans, along the coarser axis of the file.

    It is taken at the middle of the file, so that all cells and all grids of one projection and pixel size read
    the same overview.

    Parameters
    ----------
    source : rasterio.DatasetReader
        At its full resolution.
    geobox : GeoBox
        Only its CRS and pixel size matter.
    """
    row, column = source.height / 2.0, source.width / 2.0
    # The middle, and one pixel from it along either axis.
    places = [source.transform @ place for place in ((column, row), (column + 1, row), (column, row + 1))]
    x, y = rasterio.warp.transform(source.crs, str(geobox.crs), *zip(*places, strict=True))
    to_pixels = ~geobox.affine
    middle, *steps = (np.array(to_pixels @ place) for place in zip(x, y, strict=True))
    jacobian = np.stack([step - middle for step in steps])
    return float(1.0 / np.linalg.norm(jacobian, 2)) if np.isfinite(jacobian).all() else 1.0


def choose_overview(factor: float, overviews: list[int]) -> int | None:
    """The coarsest overview whose pixels are not larger than the grid's.

    Parameters
    ----------
    factor : float
        From `overview_factor`.
    overviews : list of int
        By how much each overview shrinks the file.

    Returns
    -------
    int or None
        Its index; None for the full resolution.
    """
    fit = [index for index, shrink in enumerate(overviews) if shrink <= factor * (1.0 + OVERVIEW_TOLERANCE)]
    return max(fit, key=lambda index: overviews[index], default=None)


def _level(source: rasterio.DatasetReader, geobox: GeoBox, resampling: str, band: int) -> int | None:
    overviews = source.overviews(band)
    classes = resampling in ("nearest", "mode")
    if not overviews or (classes and source.driver.startswith(_WAVELETS)):
        return None
    return choose_overview(overview_factor(source, geobox), overviews)


def _reproject(
    source: rasterio.DatasetReader,
    geobox: GeoBox,
    resampling: str,
    dtype: np.dtype[Any],
    nodata: float,
    band: int,
) -> npt.NDArray[Any]:
    pixels, missing = np.full(geobox.shape, nodata, dtype), _missing(source, nodata, band)
    rasterio.warp.reproject(
        rasterio.band(source, band),
        pixels,
        src_nodata=missing,
        dst_crs=str(geobox.crs),
        dst_transform=geobox.affine,
        dst_nodata=nodata,
        resampling=Resampling[resampling],
    )
    if missing is not None and nodata == 0 != missing:
        # rasterio 1.4 takes a target's 0 for "not given", and leaves the file's own value there.
        pixels[pixels == missing] = 0
    return pixels


def _missing(source: rasterio.DatasetReader, nodata: float, band: int) -> float | None:
    """What marks missing pixels in a file: what it says, else what was stated if its pixels can hold it."""
    if source.nodatavals[band - 1] is not None:
        return float(source.nodatavals[band - 1])
    kind = np.dtype(source.dtypes[band - 1])
    if kind.kind == "f":
        return nodata
    limits = np.iinfo(kind)
    return nodata if math.isfinite(nodata) and limits.min <= nodata <= limits.max else None
