"""Region: a name, outlines, and the grid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from odc.geo.geom import BoundingBox, Geometry, box

from glaciercube.errors import OutlineError, RegionError
from glaciercube.region.bounds import Bounds, geographic_bounds, search_boxes
from glaciercube.region.crs import choose_crs
from glaciercube.region.outlines import read_outlines

if TYPE_CHECKING:
    import geopandas as gpd

__all__ = ["Region"]


@dataclass(frozen=True)
class Region:
    """A place on a metric grid.

    Attributes
    ----------
    name : str
        Name of the place; used in titles and file names.
    geobox : odc.geo.geobox.GeoBox
        The grid: shape, affine transform in metres and CRS. All cubes of this region lie on it.
    outlines : geopandas.GeoDataFrame or None
        Glacier outlines in the grid's CRS, with a column ``outline`` (str, unique).
    """

    name: str
    geobox: GeoBox
    outlines: gpd.GeoDataFrame | None = None

    @classmethod
    def from_bbox(
        cls,
        bbox: Bounds,
        *,
        resolution: float,
        name: str = "region",
        buffer: float = 0.0,
        crs: str | None = None,
        outlines: gpd.GeoDataFrame | None = None,
    ) -> Region:
        """Make a region from geographic bounds.

        Parameters
        ----------
        bbox : (west, south, east, north)
            Degrees; ``west > east`` crosses the antimeridian.
        resolution : float
            Pixel size in metres.
        name : str
            Name of the place.
        buffer : float
            Metres added on every side.
        crs : str or None
            A metric CRS; chosen from the place when None (see `choose_crs`).
        outlines : GeoDataFrame or None
            Outlines in any CRS; reprojected to the grid.

        Raises
        ------
        RegionError
            If the bounds are not bounds, the resolution is not positive or the CRS is not metric.
        """
        west, south, east, north = _checked_bounds(bbox)
        _check_lengths(resolution, buffer)
        if west > east:
            east += 360.0
        target = _metric_crs(crs or choose_crs((west, south, east, north)))
        footprint = _project(box(west, south, east, north, "EPSG:4326"), target)
        return cls(name, _grid(footprint.boundingbox, target, resolution, buffer), _on_grid(outlines, target))

    @classmethod
    def from_outlines(
        cls,
        outlines: str | Path | gpd.GeoDataFrame,
        *,
        resolution: float,
        name: str | None = None,
        glacier: str | None = None,
        buffer: float = 200.0,
        crs: str | None = None,
    ) -> Region:
        """Make a region that covers glacier outlines, or one glacier of an inventory.

        Parameters
        ----------
        outlines : path or GeoDataFrame
            GeoJSON, GeoPackage, shapefile (also a RGI 6 or 7 file), any CRS.
        resolution : float
            Pixel size in metres.
        name : str or None
            Name of the place; the glacier's id or the file's name when None.
        glacier : str or None
            Take only the glacier of this id (``RGIId``, ``rgi_id`` or ``outline`` column).
        buffer : float
            Metres added around the outlines.
        crs : str or None
            A metric CRS; chosen from the place when None.

        Raises
        ------
        OutlineError
            If the file cannot be read, has no polygons or lacks the glacier.
        RegionError
            If the resolution or the CRS cannot be used.
        """
        frame = read_outlines(outlines, glacier=glacier)
        _check_lengths(resolution, buffer)
        geographic = frame.to_crs("EPSG:4326")
        target = _metric_crs(crs or choose_crs(_bounds_of(geographic)))
        projected = _on_grid(frame, target)
        if projected is None:
            raise OutlineError("the outlines are empty", "give a file with at least one polygon")
        if name is None:
            name = glacier or (Path(outlines).stem if isinstance(outlines, str | Path) else "region")
        left, bottom, right, top = (float(value) for value in projected.total_bounds)
        bounds = BoundingBox(left, bottom, right, top, crs=target)
        return cls(name, _grid(bounds, target, resolution, buffer), projected)

    @property
    def resolution(self) -> float:
        """Pixel size in metres."""
        return float(abs(self.geobox.resolution.x))

    @property
    def bbox(self) -> Bounds:
        """Geographic bounds (west, south, east, north) in degrees, from the densified grid edge.

        ``west > east`` where the grid crosses the antimeridian; all longitudes, and 90 degrees, where it holds a pole.
        """
        return geographic_bounds(self.geobox)

    @property
    def longitude(self) -> float:
        """Longitude of the region's middle in degrees; decides the solar day.

        0 where the grid holds a pole, which has every solar time: its days are those of UTC.
        """
        west, _, east, _ = self.bbox
        if (west, east) == (-180.0, 180.0):
            return 0.0
        return _signed((west + (east - west) % 360.0 / 2.0) % 360.0)

    def search_boxes(self, margin: float = 0.0) -> list[Bounds]:
        """Geographic boxes that together hold every point of the grid, for asking a catalogue.

        Parameters
        ----------
        margin : float
            Metres of ground on every side of the grid that they hold too.

        Returns
        -------
        list of (west, south, east, north)
            Degrees, each with ``west <= east``: one box, two where the grid crosses the antimeridian, and one of all
            longitudes up to 90 degrees where it holds a pole.
        """
        return search_boxes(self.geobox, margin)


def _checked_bounds(bbox: Sequence[float]) -> Bounds:
    if len(bbox) != 4 or not all(math.isfinite(value) for value in bbox):
        raise RegionError(f"bbox {list(bbox)} is not four numbers", "give [west, south, east, north] in degrees")
    west, south, east, north = (float(value) for value in bbox)
    if not (-180 <= west <= 180 and -180 <= east <= 180 and -90 <= south < north <= 90) or west == east:
        raise RegionError(
            f"bbox {list(bbox)} is not a box of degrees", "give [west, south, east, north], south below north"
        )
    return (west, south, east, north)


def _check_lengths(resolution: float, buffer: float) -> None:
    if not (math.isfinite(resolution) and resolution > 0):
        raise RegionError(f"resolution {resolution} is not a length", "give metres, such as 10 or 20")
    if not (math.isfinite(buffer) and buffer >= 0):
        raise RegionError(f"buffer {buffer} is not a length", "give metres, 0 or more")


def _metric_crs(crs: str) -> CRS:
    try:
        target = CRS(crs)
    except Exception as error:
        raise RegionError(f"unknown CRS {crs!r}", "give an EPSG code such as EPSG:32645") from error
    if not target.projected or any(axis.unit_name not in ("metre", "meter") for axis in target.proj.axis_info):
        raise RegionError(f"CRS {crs} is not in metres", "choose a projected one such as UTM, or leave it out")
    return target


def _project(geometry: Geometry, crs: CRS) -> Geometry:
    # A parallel is a curve on the map: without dense vertices its bulge would fall outside the grid.
    return geometry.to_crs(crs, resolution=0.01)


def _grid(bounds: BoundingBox, crs: CRS, resolution: float, buffer: float) -> GeoBox:
    grown = BoundingBox(
        bounds.left - buffer, bounds.bottom - buffer, bounds.right + buffer, bounds.top + buffer, crs=crs
    )
    if max(grown.span_x, grown.span_y) / resolution > 2_000_000:
        raise RegionError("the grid would be over two million pixels wide", "choose a coarser resolution")
    # Anchored at multiples of the resolution, so that neighbouring regions and native 10 m grids fall together.
    return GeoBox.from_bbox(grown, resolution=resolution, tight=False, anchor="edge")


def _on_grid(outlines: gpd.GeoDataFrame | None, crs: CRS) -> gpd.GeoDataFrame | None:
    if outlines is None:
        return None
    frame = outlines if "outline" in outlines.columns else read_outlines(outlines)
    return frame.to_crs(str(crs))


def _bounds_of(outlines: gpd.GeoDataFrame) -> Bounds:
    """Geographic bounds of outlines; east exceeds 180 where they lie on both sides of the antimeridian."""
    west, south, east, north = np.asarray(outlines.bounds, dtype=float).T
    if east.max() - west.min() > 180.0:
        turn = np.where(west < 0, 360.0, 0.0)
        if (east + turn).max() - (west + turn).min() < east.max() - west.min():
            west, east = west + turn, east + turn
    return (float(west.min()), float(south.min()), float(east.max()), float(north.max()))


def _signed(longitude: float) -> float:
    return (longitude + 180.0) % 360.0 - 180.0
