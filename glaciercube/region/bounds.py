"""Geographic bounds of a metric grid: from its densified edge, across the antimeridian and over a pole."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import shapely
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from shapely import affinity
from shapely.geometry.base import BaseGeometry

__all__ = ["Bounds", "footprint_meets", "geographic_bounds", "geographic_footprint", "split_bounds"]

Bounds: TypeAlias = tuple[float, float, float, float]
FloatArray: TypeAlias = npt.NDArray[np.float64]

# Points along each edge. A parallel or meridian that the edge meets further than two steps from a pole bulges out
# between two points by less than a sixteenth of a step, which `search_boxes` adds.
_POINTS = 129


def geographic_bounds(geobox: GeoBox, margin: float = 0.0) -> Bounds:
    """Bounds of a grid in degrees, from its densified edge.

    Parameters
    ----------
    geobox : GeoBox
        A metric grid.
    margin : float
        Metres added on every side.

    Returns
    -------
    (west, south, east, north)
        Degrees, longitudes within -180 to 180; ``west > east`` where the grid crosses the antimeridian. A grid that
        holds a pole, or lies within a 64th of its size of it, has all longitudes: ``(-180, south, 180, 90)``.
    """
    ring = _ring(geobox, margin)
    low, high = float(ring[:, 1].min()), float(ring[:, 1].max())
    for latitude in (90.0, -90.0):
        if _holds_pole(geobox, margin, latitude):
            return (-180.0, low, 180.0, 90.0) if latitude > 0 else (-180.0, -90.0, 180.0, high)
    west, east = float(ring[:, 0].min()), float(ring[:, 0].max())
    if east - west >= 360.0:
        return (-180.0, low, 180.0, high)
    return (_signed(west), low, _signed_east(east), high)


def split_bounds(bounds: Bounds) -> list[Bounds]:
    """Cut geographic bounds that cross the antimeridian into two boxes, each with ``west <= east``."""
    west, south, east, north = bounds
    if west <= east:
        return [bounds]
    return [(west, south, 180.0, north), (-180.0, south, east, north)]


def search_boxes(geobox: GeoBox, margin: float) -> list[Bounds]:
    """Boxes that hold every point of a grid; see `Region.search_boxes`."""
    step = max(geobox.boundingbox.span_x, geobox.boundingbox.span_y) / (_POINTS - 1)
    west, south, east, north = geographic_bounds(geobox, margin + step / 16.0)
    return split_bounds((west, max(south, -90.0), east, min(north, 90.0)))


def footprint_meets(footprint: BaseGeometry, boxes: Sequence[Bounds]) -> bool:
    """Whether a scene's footprint meets any of some boxes.

    Parameters
    ----------
    footprint : shapely geometry
        Degrees. Providers draw scenes at the antimeridian in two parts, or in one that goes on beyond 180 degrees; both
        are understood.
    boxes : sequence of (west, south, east, north)
        From `Region.search_boxes`.
    """
    west, _, east, _ = footprint.bounds
    turns = [0.0] + [turn for turn, beyond in ((360.0, west < -180.0), (-360.0, east > 180.0)) if beyond]
    shapes = [shapely.box(w - turn, s, e - turn, n) for w, s, e, n in boxes for turn in turns]
    return any(footprint.intersects(shape) for shape in shapes)


def geographic_footprint(geobox: GeoBox) -> BaseGeometry:
    """Footprint of a grid as GeoJSON wants it: cut at the antimeridian, and taken to the pole where it holds one.

    Parameters
    ----------
    geobox : GeoBox
        A grid in any CRS.

    Returns
    -------
    shapely Polygon or MultiPolygon
        Degrees, longitudes within -180 to 180 (RFC 7946, section 3.1.9).
    """
    ring = _ring(geobox, 0.0)
    turned = float(ring[-1, 0] - ring[0, 0])
    if abs(turned) > 180.0:
        # The edge goes once around the pole: close it along the pole's parallel.
        pole = 90.0 if ring[:, 1].mean() > 0 else -90.0
        ring = np.vstack([ring, [ring[-1, 0], pole], [ring[0, 0], pole]])
    shape = shapely.make_valid(shapely.Polygon(ring))
    first = int(np.floor((ring[:, 0].min() + 180.0) / 360.0))
    last = int(np.floor((ring[:, 0].max() + 180.0) / 360.0))
    parts = []
    for turn in range(first, last + 1):
        cut = shape.intersection(shapely.box(360.0 * turn - 180.0, -90.0, 360.0 * turn + 180.0, 90.0))
        parts.append(affinity.translate(cut, -360.0 * turn))
    areas = [part for part in shapely.get_parts(parts) if part.area > 0]
    return areas[0] if len(areas) == 1 else shapely.unary_union(areas)


def _ring(geobox: GeoBox, margin: float) -> FloatArray:
    """Longitude and latitude along the grown edge, closed; longitudes go on beyond 180 without a jump."""
    box = geobox.boundingbox
    t = np.linspace(0.0, 1.0, _POINTS)
    left, right, bottom, top = box.left - margin, box.right + margin, box.bottom - margin, box.top + margin
    x = np.concatenate(
        [left + t * (right - left), np.full(_POINTS, right), right - t * (right - left), np.full(_POINTS, left)]
    )
    y = np.concatenate(
        [np.full(_POINTS, bottom), bottom + t * (top - bottom), np.full(_POINTS, top), top - t * (top - bottom)]
    )
    longitude, latitude = _to_map(str(geobox.crs)).transform(x, y, direction="INVERSE")
    return np.stack([np.unwrap(longitude, period=360.0), latitude], axis=1)


def _holds_pole(geobox: GeoBox, margin: float, latitude: float) -> bool:
    x, y = _to_map(str(geobox.crs)).transform(0.0, latitude)
    if not (np.isfinite(x) and np.isfinite(y)):
        return False
    box = geobox.boundingbox
    # Nearer than two steps, points along the edge are too few to tell longitudes by.
    near = margin + 2.0 * max(box.span_x, box.span_y) / (_POINTS - 1)
    return bool(box.left - near <= x <= box.right + near and box.bottom - near <= y <= box.top + near)


@lru_cache(maxsize=16)
def _to_map(crs: str) -> Transformer:
    return Transformer.from_crs("EPSG:4326", crs, always_xy=True)


def _signed(longitude: float) -> float:
    return longitude if -180.0 <= longitude < 180.0 else (longitude + 180.0) % 360.0 - 180.0


def _signed_east(longitude: float) -> float:
    # An eastern edge on the antimeridian is 180, not -180.
    return longitude if -180.0 < longitude <= 180.0 else 180.0 - (180.0 - longitude) % 360.0
