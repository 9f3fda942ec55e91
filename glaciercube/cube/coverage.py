"""How much of a region each acquisition covers, by the footprints of its scenes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
import shapely
import xarray as xr
from odc.geo.geobox import GeoBox
from pyproj import Transformer

from glaciercube.catalog import Scenes
from glaciercube.region import whole_of

__all__ = ["coverage", "with_coverage"]

# Points a side at which the region is asked whether a footprint holds them.
_SIDE = 24


def coverage(scenes: Scenes, geobox: GeoBox) -> pd.Series[float]:
    """Share of a region that each acquisition covers.

    Parameters
    ----------
    scenes : Scenes
        Of one sensor.
    geobox : GeoBox
        The grid; of a window of one, the whole.

    Returns
    -------
    Series
        Label of the acquisition, ascending -> share, 0 to 1, counted on points 1/24 of the region apart. A footprint
        says where a scene may have pixels: its swath may cover less.
    """
    points = _points(whole_of(geobox))
    table = scenes.table
    shares = {
        time: float(np.any([_inside(shape, points) for shape in group], axis=0).mean())
        for time, group in table.groupby("time")["geometry"]
    }
    return pd.Series(shares, dtype=float).sort_index()


def with_coverage(series: xr.Dataset, scenes: Scenes, geobox: GeoBox) -> xr.Dataset:
    """A sensor's series with its `coverage` as a coordinate along time."""
    shares = coverage(scenes, geobox).reindex(series["time"].to_numpy()).to_numpy("float64")
    attrs = {"units": "1", "long_name": "share of the grid within the footprints of the scenes"}
    return series.assign_coords(coverage=("time", shares, attrs))


def _points(geobox: GeoBox) -> npt.NDArray[np.float64]:
    """Longitude and latitude of points all over the grid: (point, 2)."""
    high, wide = geobox.shape
    column, row = np.meshgrid((np.arange(_SIDE) + 0.5) / _SIDE * wide, (np.arange(_SIDE) + 0.5) / _SIDE * high)
    transform = geobox.transform
    x = transform.a * column + transform.b * row + transform.c
    y = transform.d * column + transform.e * row + transform.f
    to_degrees = Transformer.from_crs(str(geobox.crs), "EPSG:4326", always_xy=True)
    return np.stack(to_degrees.transform(x.ravel(), y.ravel()), axis=-1)


def _inside(footprint: shapely.Geometry, points: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    # Providers write footprints across the antimeridian in two ways: cut there, or going on beyond 180 degrees.
    found = np.zeros(len(points), np.bool_)
    # A copy: shapely prepares what it is asked of, and a footprint that two threads ask of crashes GEOS.
    footprint = shapely.from_wkb(shapely.to_wkb(footprint))
    for turn in (-360.0, 0.0, 360.0):
        found |= shapely.contains_xy(footprint, points[:, 0] + turn, points[:, 1])
    return found
