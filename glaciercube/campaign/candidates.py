"""Which shards of which dates can hold anything: what no scene shows and no outline comes near need not be computed."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import shapely
from pyproj import Transformer
from shapely import affinity

from glaciercube.errors import require
from glaciercube.region import Region

__all__ = ["MARGIN", "Lattice", "PlanOptions", "Sight", "near_outlines"]

Bool: TypeAlias = npt.NDArray[np.bool_]
Indices: TypeAlias = npt.NDArray[np.int64]
Geometries: TypeAlias = npt.NDArray[Any]

# Metres by which windows are grown before footprints are asked: readers draw the edges of footprints as straight lines
# on the map, which for a swath of 250 km at 70 degrees of latitude is 3.3 km off (the sagitta of a parallel).
MARGIN: Final = 5000.0
# Units are made on threads, and GEOS keeps what it learns of a geometry with it.
_ONE_AT_A_TIME: Final = threading.Lock()
# Degrees between the vertices of an edge that is taken to another CRS.
_STEP: Final = 0.1


@dataclass(frozen=True)
class PlanOptions:
    """What is planned for.

    Attributes
    ----------
    candidates : {"outlines", "all"}
        ``outlines``: only shards within `buffer` of the region's outlines, if it has any, and only dates of which a
        scene shows the shard, unless the model can tell ice from what is still (terrain) alone. What is left out is NaN
        and has the flag ``not_candidate``. ``all``: every shard of every date.
    buffer : float
        Metres around outlines; what glaciers have left and where they may surge to lies within a few kilometres.
    """

    candidates: Literal["outlines", "all"] = "outlines"
    buffer: float = 5000.0

    def __post_init__(self) -> None:
        known = self.candidates in ("outlines", "all")
        require(known, f"unknown candidates {self.candidates!r}", "choose outlines or all")
        fine = np.isfinite(self.buffer) and self.buffer >= 0
        require(bool(fine), f"buffer {self.buffer} is not a length", "give metres, 0 or more")


@dataclass(frozen=True)
class Lattice:
    """Rectangles in rows and columns on the map, which may overlap their neighbours.

    Attributes
    ----------
    left, right : (column,) float64
        Metres, ascending.
    bottom, top : (row,) float64
        Metres, descending.
    """

    left: npt.NDArray[np.float64]
    right: npt.NDArray[np.float64]
    bottom: npt.NDArray[np.float64]
    top: npt.NDArray[np.float64]

    def around(self, bounds: Sequence[float], margin: float = 0.0) -> tuple[slice, slice]:
        """Rows and columns of the rectangles that meet (left, bottom, right, top) grown by metres."""
        left, bottom, right, top = bounds
        columns = slice(
            int(np.searchsorted(self.right, left - margin)), int(np.searchsorted(self.left, right + margin, "right"))
        )
        # Rows go down the map.
        first = int(np.searchsorted(-self.bottom, -(top + margin)))
        rows = slice(first, int(np.searchsorted(-self.top, -(bottom - margin), "right")))
        return rows, columns

    def boxes(self, rows: slice, columns: slice) -> Geometries:
        """The rectangles as shapely boxes: (row, column)."""
        x, y = (slice(columns.start, columns.stop), slice(rows.start, rows.stop))
        left, bottom = np.meshgrid(self.left[x], self.bottom[y])
        right, top = np.meshgrid(self.right[x], self.top[y])
        boxes: Geometries = shapely.box(left, bottom, right, top)
        return boxes


class Sight:
    """Footprints of scenes on the grid's map.

    Parameters
    ----------
    footprints : array of shapely geometries
        Degrees.
    region : Region
        The grid; what lies far from it is left out.
    """

    def __init__(self, footprints: Geometries, region: Region) -> None:
        unique: dict[bytes, int] = {}
        # Most granules of a tile have one footprint: each is projected, and laid over the blocks, once.
        self._same = np.array([unique.setdefault(shapely.to_wkb(shape), len(unique)) for shape in footprints], np.int64)
        shapes = shapely.from_wkb(np.array(list(unique), dtype=object))
        self._shapes = _on_map(shapes, region)

    def meets(self, scenes: Indices, box: Sequence[float]) -> Bool:
        """Which of some scenes come within `MARGIN` of a rectangle (left, bottom, right, top; metres)."""
        left, bottom, right, top = box
        grown = shapely.box(left - MARGIN, bottom - MARGIN, right + MARGIN, top + MARGIN)
        with _ONE_AT_A_TIME:
            found: Bool = shapely.intersects(self._shapes[self._same[scenes]], grown)
        return found

    def blocks(self, lattice: Lattice) -> list[Indices]:
        """Numbers, row by row, of the rectangles that come within `MARGIN` of each scene."""
        wide = len(lattice.left)
        found = []
        for rows, columns, met in self._over(lattice, MARGIN):
            y, x = np.nonzero(met)
            found.append((y + rows.start) * wide + x + columns.start)
        return [found[index] for index in self._same]

    def cells(self, lattice: Lattice) -> tuple[list[tuple[slice, slice, Bool]], Indices]:
        """Which rectangles each footprint meets: rows, columns and which of these; and the footprint of each scene."""
        return list(self._over(lattice, 0.0)), self._same

    def _over(self, lattice: Lattice, margin: float) -> Iterator[tuple[slice, slice, Bool]]:
        for shape in self._shapes:
            if shape.is_empty:
                yield slice(0, 0), slice(0, 0), np.zeros((0, 0), np.bool_)
                continue
            rows, columns = lattice.around(shape.bounds, margin)
            yield rows, columns, shapely.dwithin(_prepared(shape), lattice.boxes(rows, columns), margin)


def near_outlines(region: Region, buffer: float, lattice: Lattice) -> Bool:
    """Which rectangles lie within metres of the region's outlines: (row, column); all where there are no outlines."""
    near = np.zeros((len(lattice.top), len(lattice.left)), np.bool_)
    if region.outlines is None:
        return ~near
    for shape in region.outlines.geometry:
        rows, columns = lattice.around(shape.bounds, buffer)
        if near[rows, columns].all():
            continue
        near[rows, columns] |= shapely.dwithin(_prepared(shape), lattice.boxes(rows, columns), buffer)
    return near


def _prepared(shape: shapely.Geometry) -> shapely.Geometry:
    """A prepared copy: the first question builds what is looked up, and two threads that ask at once crash GEOS."""
    own = shapely.from_wkb(shapely.to_wkb(shape))
    shapely.prepare(own)
    return own


def _on_map(shapes: Geometries, region: Region) -> Geometries:
    """Footprints (degrees) in the grid's CRS, as far as they lie near the grid; empty where they do not."""
    to_map = Transformer.from_crs("EPSG:4326", str(region.geobox.crs), always_xy=True)

    def project(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.stack(to_map.transform(points[:, 0], points[:, 1]), axis=1)

    total = np.full(len(shapes), shapely.Polygon(), dtype=object)
    for box in region.search_boxes(4 * MARGIN):
        for turn in (0.0, 360.0, -360.0):
            # Footprints across the antimeridian are drawn in two ways: cut there, or going on beyond 180 degrees.
            here = affinity.translate(shapely.box(*box), -turn)
            met = np.flatnonzero(shapely.intersects(shapes, here))
            for index in met:
                part = affinity.translate(shapely.intersection(shapes[index], here), turn)
                if part.area > 0:
                    laid = shapely.make_valid(shapely.transform(shapely.segmentize(part, _STEP), project))
                    total[index] = laid if total[index].is_empty else total[index].union(laid)
    return total
