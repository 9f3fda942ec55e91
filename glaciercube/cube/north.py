"""Where true north lies on a grid: the convergence of the meridians."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt
from odc.geo.geobox import GeoBox
from pyproj import Transformer

__all__ = ["grid_north"]

# Degrees of latitude stepped towards the pole to see where it lies.
_STEP = 1e-4


def grid_north(geobox: GeoBox, cell: int) -> Any:
    """Direction of true north on the grid, lazily.

    Parameters
    ----------
    geobox : GeoBox
        A metric grid.
    cell : int
        Side of a block in pixels; within one the direction is interpolated between its corners.

    Returns
    -------
    dask array (2, y, x) float32
        Sine and cosine of the azimuth of true north, clockwise from the grid's y axis; 0 and 1 on a central meridian.
    """
    rows, columns = (_chunks(size, cell) for size in geobox.shape)
    return da.map_blocks(
        _block, geobox=geobox, chunks=((2,), rows, columns), dtype="float32", meta=np.empty((0, 0, 0), "f4")
    )


def _chunks(length: int, step: int) -> tuple[int, ...]:
    return tuple(min(step, length - start) for start in range(0, length, step))


def _block(geobox: GeoBox, block_info: Any = None) -> npt.NDArray[np.float32]:
    (y0, y1), (x0, x1) = block_info[None]["array-location"][1:]
    corners = np.array([_north(geobox, x, y) for y in (y0, y1) for x in (x0, x1)]).reshape(2, 2, 2)
    down = np.linspace(0, 1, y1 - y0)[:, None, None]
    across = np.linspace(0, 1, x1 - x0)[None, :, None]
    left, right = (corners[0, i] * (1 - down) + corners[1, i] * down for i in (0, 1))
    both = left * (1 - across) + right * across
    unit = both / np.linalg.norm(both, axis=-1, keepdims=True)
    out: npt.NDArray[np.float32] = np.moveaxis(unit, -1, 0).astype(np.float32)
    return out


def _north(geobox: GeoBox, column: float, row: float) -> tuple[float, float]:
    to_map = Transformer.from_crs("EPSG:4326", str(geobox.crs), always_xy=True)
    x, y = geobox.affine @ (column, row)
    longitude, latitude = to_map.transform(x, y, direction="INVERSE")
    towards = to_map.transform(longitude, min(latitude + _STEP, 90.0))
    east, north = towards[0] - x, towards[1] - y
    length = float(np.hypot(east, north)) or 1.0
    return east / length, north / length
