"""How much of a region scenes cover."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import shapely
from pyproj import Transformer
from shapely import affinity
from shapely.geometry.base import BaseGeometry

from glaciercube.region import Bounds, Region

__all__ = ["shares"]

_STEP = 0.05  # degrees between the vertices of an edge that is taken to another CRS


def shares(observations: Iterable[Sequence[BaseGeometry]], region: Region) -> list[float]:
    """Share of a region's grid that lies within the footprints of each observation.

    Parameters
    ----------
    observations : iterable of sequences of shapely geometries
        The footprints of each, in degrees.
    region : Region
        Its grid's rectangle is what is to be covered; areas are measured in its CRS.

    Returns
    -------
    list of float
        0 to 1.
    """
    box = region.geobox.boundingbox
    grid = shapely.box(box.left, box.bottom, box.right, box.top)
    # A little more than the grid, so that cutting does not cut what is within.
    boxes = region.search_boxes(2 * region.resolution)
    transformer = Transformer.from_crs("EPSG:4326", str(region.geobox.crs), always_xy=True)
    answer = []
    for footprints in observations:
        parts = [_on_grid(part, transformer) for shape in footprints for part in _cut(shape, boxes)]
        covered = shapely.union_all(parts).intersection(grid) if parts else shapely.Polygon()
        answer.append(min(float(covered.area / grid.area), 1.0))
    return answer


def _cut(footprint: BaseGeometry, boxes: Sequence[Bounds]) -> list[BaseGeometry]:
    """The parts of a footprint near the grid; it may be drawn beyond 180 degrees."""
    parts = [
        affinity.translate(footprint, turn).intersection(shapely.box(*box))
        for box in boxes
        for turn in (0.0, 360.0, -360.0)
    ]
    return [part for part in parts if part.area > 0]


def _on_grid(shape: BaseGeometry, transformer: Transformer) -> BaseGeometry:
    def project(
        points: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
    ) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        return np.stack(transformer.transform(points[:, 0], points[:, 1]), axis=1)

    return shapely.make_valid(shapely.transform(shapely.segmentize(shape, _STEP), project))
