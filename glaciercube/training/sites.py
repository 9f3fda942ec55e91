"""Where chips lie on the ground, and how far apart their footprints are, anywhere on Earth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import shapely
from scipy.spatial import cKDTree

from glaciercube.errors import ModelError
from glaciercube.models.chips import UNKNOWN, Chip
from glaciercube.models.classes import ICE

__all__ = ["Site", "block_of", "close_pairs", "gaps", "positions", "site_of", "sites_of"]

FloatArray: TypeAlias = npt.NDArray[np.float64]
Pairs: TypeAlias = npt.NDArray[np.int64]

# WGS 84 (NIMA TR8350.2): semi-major axis in metres, and first eccentricity squared.
_MAJOR, _ECCENTRICITY = 6378137.0, 6.69437999014e-3
_MEAN_RADIUS = 6371008.8
# Corners of the polygon around the circle that holds a chip of which only the middle is known.
_SIDES = 16


@dataclass(frozen=True)
class Site:
    """Where a chip lies, without its pixels.

    Attributes
    ----------
    name, place : str
        Of the chip.
    footprint : tuple of (longitude, latitude)
        Corners of a convex polygon that holds the chip, in degrees, in order; longitudes may be beyond 180. Empty where
        it is not known.
    area : float
        Glacier in it, km2.
    """

    name: str
    place: str
    footprint: tuple[tuple[float, float], ...] = ()
    area: float = 0.0


def site_of(chip: Chip) -> Site:
    """Where a chip lies.

    The footprint is that of its attribute ``footprint`` (longitude and latitude of its corners). Where there is none,
    it is a polygon around the circle that holds the chip, since a chip's middle does not say how its grid is turned.

    Parameters
    ----------
    chip : Chip
        Any.
    """
    footprint: tuple[tuple[float, float], ...] = ()
    if "footprint" in chip.attributes:
        footprint = tuple((float(x), float(y)) for x, y in chip.attributes["footprint"])
    elif chip.centre is not None:
        footprint = _around(chip.centre, chip.resolution * math.hypot(*chip.label.shape[1:]) / 2.0)
    return Site(chip.name, chip.place or chip.name, footprint, float(chip.attributes.get("glacier_km2", _ice(chip))))


def sites_of(chips: Sequence[Chip]) -> tuple[Site, ...]:
    """Where chips lie; those that are drawn or read lazily are asked for their sites, and not read."""
    known: Any = getattr(chips, "sites", None)
    return tuple(known) if known is not None else tuple(site_of(chip) for chip in chips)


def _ice(chip: Chip) -> float:
    """Glacier in a chip at its first date, km2."""
    indices = [index for index, classes in enumerate(chip.labels.values()) if not set(ICE).isdisjoint(classes)]
    first = chip.label[0]
    count = int((np.isin(first, indices) & (first != UNKNOWN)).sum())
    return count * chip.resolution**2 / 1e6


def _around(centre: tuple[float, float], radius: float) -> tuple[tuple[float, float], ...]:
    """Polygon around a circle of some metres."""
    from pyproj import Geod

    angles = np.arange(_SIDES) * (360.0 / _SIDES)
    reach = np.full(_SIDES, radius / math.cos(math.pi / _SIDES))
    start = np.full(_SIDES, centre[0]), np.full(_SIDES, centre[1])
    longitude, latitude, _ = Geod(ellps="WGS84").fwd(*start, angles, reach)
    return tuple(zip(np.asarray(longitude).tolist(), np.asarray(latitude).tolist(), strict=True))


def positions(sites: Sequence[Site]) -> list[FloatArray]:
    """Corners of every site in space: (corner, 3) metres from the Earth's centre, on the ellipsoid.

    Raises
    ------
    ModelError
        If a site has no footprint.
    """
    nowhere = next((site.name for site in sites if not site.footprint), None)
    if nowhere is not None:
        raise ModelError(
            f"chip {nowhere!r} says nowhere where it lies",
            "give it a centre in longitude and latitude, or part chips by place and without a buffer",
        )
    return [_in_space(np.asarray(site.footprint, dtype=float)) for site in sites]


def _in_space(lonlat: FloatArray) -> FloatArray:
    longitude, latitude = np.radians(lonlat[:, 0]), np.radians(lonlat[:, 1])
    normal = _MAJOR / np.sqrt(1.0 - _ECCENTRICITY * np.sin(latitude) ** 2)
    flat = normal * np.cos(latitude)
    height = normal * (1.0 - _ECCENTRICITY) * np.sin(latitude)
    return np.stack([flat * np.cos(longitude), flat * np.sin(longitude), height], axis=1)


def close_pairs(corners: Sequence[FloatArray], distance: float, groups: Sequence[int]) -> Pairs:
    """Pairs of sites of different groups that lie nearer to each other than some distance.

    Parameters
    ----------
    corners : sequence of (corner, 3) float
        From `positions`.
    distance : float
        Metres.
    groups : sequence of int
        Of every site.

    Returns
    -------
    (pair, 2) int64
        Indices, the lower first.
    """
    group = np.asarray(groups)
    middles = np.array([c.mean(axis=0) for c in corners]).reshape(-1, 3)
    radii = np.array([np.linalg.norm(c - m, axis=1).max() for c, m in zip(corners, middles, strict=True)])
    if len(corners) < 2 or distance <= 0:
        return np.zeros((0, 2), np.int64)
    # A straight line through the ground is never longer than the way on it: no pair is overlooked.
    pairs = cKDTree(middles).query_pairs(distance + 2.0 * float(radii.max()), output_type="ndarray").astype(np.int64)
    pairs = pairs[group[pairs[:, 0]] != group[pairs[:, 1]]]
    apart = np.linalg.norm(middles[pairs[:, 0]] - middles[pairs[:, 1]], axis=1)
    pairs = pairs[apart - radii[pairs[:, 0]] - radii[pairs[:, 1]] < distance]
    near: Pairs = pairs[gaps(corners, pairs) < distance]
    return near


def gaps(corners: Sequence[FloatArray], pairs: Pairs) -> FloatArray:
    """Metres between the footprints of pairs of sites, 0 where they overlap.

    Both are laid on the plane that touches the Earth midway between them. That is never longer than the way on the
    ground, and shorter by the square of the angle between them over 24: by 3e-6 at 50 km, by 0.1 % at 1000 km.

    Parameters
    ----------
    corners : sequence of (corner, 3) float
        From `positions`.
    pairs : (pair, 2) int
        Indices.

    Returns
    -------
    (pair,) float64
    """
    found = np.zeros(len(pairs))
    counts = np.array([len(c) for c in corners])
    shapes = counts[pairs]
    for first, second in {tuple(shape) for shape in shapes.tolist()}:
        chosen = np.flatnonzero((shapes == (first, second)).all(axis=1))
        left = np.stack([corners[i] for i in pairs[chosen, 0]])
        right = np.stack([corners[i] for i in pairs[chosen, 1]])
        found[chosen] = _between(left, right)
    return found


def _between(left: FloatArray, right: FloatArray) -> FloatArray:
    """Distance of convex polygons (pair, corner, 3), pair by pair."""
    up = left.mean(axis=1) + right.mean(axis=1)
    up /= np.linalg.norm(up, axis=1, keepdims=True)
    # Any axis that is not up itself leads to two that lie in the plane.
    helper = np.where(np.abs(up[:, 2:]) < 0.9, [[0.0, 0.0, 1.0]], [[1.0, 0.0, 0.0]])
    one = np.cross(helper, up)
    one /= np.linalg.norm(one, axis=1, keepdims=True)
    plane = np.stack([one, np.cross(up, one)], axis=2)
    flat = [shapely.convex_hull(shapely.multipoints(part @ plane)) for part in (left, right)]
    return np.asarray(shapely.distance(*flat), dtype=float)


def block_of(middle: FloatArray, size: float) -> tuple[int, int]:
    """Row and column of the block of `size` metres that a point in space lies in.

    Rows are bands of latitude, each cut into a whole number of columns around the Earth, so that blocks are about as
    large at the antimeridian and at the poles as anywhere.
    """
    x, y, z = middle / np.linalg.norm(middle)
    latitude, longitude = math.asin(z), math.atan2(y, x)
    rows = max(1, round(math.pi * _MEAN_RADIUS / size))
    row = min(rows - 1, int((latitude / math.pi + 0.5) * rows))
    around = 2.0 * math.pi * _MEAN_RADIUS * math.cos(((row + 0.5) / rows - 0.5) * math.pi)
    columns = max(1, round(around / size))
    return row, min(columns - 1, int((longitude / (2.0 * math.pi) + 0.5) * columns))
