"""Which metric CRS suits a place, and what to call one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from glaciercube.errors import RegionError

__all__ = ["choose_crs", "crs_name"]

# A UTM zone is 6 degrees wide; beyond about three zones its scale error passes 1 % at mid-latitudes.
_UTM_MAX_WIDTH = 18.0

# South, north, west, east (degrees) and zone of the exceptions (NGA.STND.0037, Universal Grids, table 1-1): Norway's
# band V, Svalbard's band X.
_EXCEPTIONS = (
    (56.0, 64.0, 3.0, 12.0, 32),
    (72.0, 84.0, 0.0, 9.0, 31),
    (72.0, 84.0, 9.0, 21.0, 33),
    (72.0, 84.0, 21.0, 33.0, 35),
    (72.0, 84.0, 33.0, 42.0, 37),
)


def choose_crs(bounds: Sequence[float]) -> str:
    """Choose a metric CRS from geographic bounds.

    UTM by default, with the zones that MGRS has for Norway and Svalbard (32V, 31X, 33X, 35X, 37X), since Sentinel-2 is
    cut by them and its pixels then need no resampling; Universal Polar Stereographic beyond 84 N, Antarctic polar
    stereographic (EPSG:3031) beyond 80 S; NSIDC polar stereographic (EPSG:3413 / EPSG:3031) for high-latitude regions
    too wide for UTM.

    Parameters
    ----------
    bounds : (west, south, east, north)
        Degrees; east may exceed 180.

    Returns
    -------
    str
        Such as ``"EPSG:32645"``.

    Raises
    ------
    RegionError
        If the region is too wide for one UTM zone at low latitude.
    """
    west, south, east, north = bounds
    latitude = (south + north) / 2.0
    if latitude >= 84.0:
        return "EPSG:32661"
    if latitude <= -80.0:
        return "EPSG:3031"
    if east - west > _UTM_MAX_WIDTH:
        if latitude >= 60.0:
            return "EPSG:3413"
        if latitude <= -60.0:
            return "EPSG:3031"
        raise RegionError(
            f"the region spans {east - west:.0f} degrees of longitude, too wide for one UTM zone",
            "split it into mountain ranges, or name a metric crs",
        )
    longitude = _signed((west + east) / 2.0)
    return f"EPSG:{(32600 if latitude >= 0 else 32700) + _zone(longitude, latitude)}"


def crs_name(crs: Any) -> str:
    """A CRS by its number, which a sentence can hold.

    Parameters
    ----------
    crs : CRS or None
        Of pyproj, rasterio or odc.
    """
    if crs is None:
        return "no CRS"
    number = crs.to_epsg()
    return f"EPSG:{number}" if number else "a CRS without an EPSG number"


def _zone(longitude: float, latitude: float) -> int:
    """UTM zone of a place, 1 to 60."""
    for south, north, west, east, zone in _EXCEPTIONS:
        if south <= latitude < north and west <= longitude < east:
            return zone
    return min(math.floor((longitude + 180.0) / 6.0) + 1, 60)


def _signed(longitude: float) -> float:
    return (longitude + 180.0) % 360.0 - 180.0
