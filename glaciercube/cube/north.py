"""Where true north lies on a grid: the convergence of the meridians."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, TypeAlias

import dask.array as da
import numpy as np
import numpy.typing as npt
from odc.geo.geobox import GeoBox
from pyproj import Transformer

__all__ = ["grid_north", "lonlat", "north_at"]

FloatArray: TypeAlias = npt.NDArray[np.float64]

# Degrees of latitude stepped towards the equator, which is there even at a pole, to see where the meridian leads.
_STEP = 1e-4


def grid_north(geobox: GeoBox, cell: int) -> Any:
    """Direction of true north on the grid, lazily.

    Parameters
    ----------
    geobox : GeoBox
        A metric grid.
    cell : int
        Side of a block in pixels.

    Returns
    -------
    dask array (2, y, x) float32
        Sine and cosine of the azimuth of true north, clockwise from the grid's y axis; 0 and 1 on a central meridian.
    """
    rows, columns = (_chunks(size, cell) for size in geobox.shape)
    return da.map_blocks(
        _block, geobox=geobox, chunks=((2,), rows, columns), dtype="float32", meta=np.empty((0, 0, 0), "f4")
    )


def north_at(geobox: GeoBox, x: FloatArray, y: FloatArray) -> FloatArray:
    """Direction of true north at points of a map.

    Parameters
    ----------
    geobox : GeoBox
        Whose CRS.
    x, y : (n,) float64
        Map coordinates, metres.

    Returns
    -------
    (2, n) float64
        Sine and cosine of its azimuth, clockwise from the map's y axis; along the meridian of 0 at a pole.
    """
    longitude, latitude = lonlat(geobox, x, y)
    side = np.where(latitude > 0, 1.0, -1.0)
    there = _to_map(str(geobox.crs)).transform(longitude, latitude - side * _STEP)
    # Towards the pole of this hemisphere, which in the south is away from north.
    east, north = side * (x - there[0]), side * (y - there[1])
    return np.asarray(np.stack([east, north]) / np.hypot(east, north))


def lonlat(geobox: GeoBox, x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Longitude and latitude (degrees) of points of a map (metres)."""
    longitude, latitude = _to_map(str(geobox.crs)).transform(x, y, direction="INVERSE")
    return np.asarray(longitude), np.asarray(latitude)


@lru_cache(maxsize=16)
def _to_map(crs: str) -> Transformer:
    return Transformer.from_crs("EPSG:4326", crs, always_xy=True)


def _chunks(length: int, step: int) -> tuple[int, ...]:
    return tuple(min(step, length - start) for start in range(0, length, step))


def _block(geobox: GeoBox, block_info: Any = None) -> npt.NDArray[np.float32]:
    (y0, y1), (x0, x1) = block_info[None]["array-location"][1:]
    column, row = np.meshgrid(np.arange(x0, x1) + 0.5, np.arange(y0, y1) + 0.5)
    a = geobox.affine
    found = north_at(geobox, (a.c + a.a * column).ravel(), (a.f + a.e * row).ravel())
    return found.reshape(2, y1 - y0, x1 - x0).astype(np.float32)
