"""Where true north lies on a grid: the convergence of the meridians."""

from __future__ import annotations

from functools import lru_cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from odc.geo.geobox import GeoBox
from pyproj import Transformer

__all__ = ["lonlat", "north_at"]

FloatArray: TypeAlias = npt.NDArray[np.float64]

# Degrees of latitude stepped towards the equator, which is there even at a pole, to see where the meridian leads.
_STEP = 1e-4


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
