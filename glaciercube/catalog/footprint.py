"""Footprints of scenes."""

from __future__ import annotations

import numpy as np
import pystac
import shapely
import shapely.geometry
from shapely.geometry.base import BaseGeometry

from glaciercube.errors import BandError
from glaciercube.region import split_bounds

__all__ = ["footprint"]


def footprint(item: pystac.Item) -> BaseGeometry:
    """The ground that a scene shows.

    Parameters
    ----------
    item : pystac.Item
        A scene; where it has no geometry its ``bbox`` stands in, also one of three dimensions.

    Returns
    -------
    shapely geometry
        Degrees, valid, not empty.

    Raises
    ------
    BandError
        If the item has neither, or they cannot be used.
    """
    try:
        shape = shapely.make_valid(shapely.geometry.shape(item.geometry)) if item.geometry else _box(item.bbox)
    except (shapely.errors.ShapelyError, AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
        raise _unusable(item) from error
    if shape.is_empty or not np.isfinite(shape.bounds).all():
        raise _unusable(item)
    return shape


def _box(bbox: list[float] | None) -> BaseGeometry:
    if not bbox:
        return shapely.Polygon()
    half = len(bbox) // 2
    west, south, east, north = (*bbox[:2], *bbox[half : half + 2])
    return shapely.union_all([shapely.box(*part) for part in split_bounds((west, south, east, north))])


def _unusable(item: pystac.Item) -> BandError:
    return BandError(f"scene {item.id} has no usable footprint", "leave it out, or mend its geometry")
