"""Where: a named place, its outlines, and the metric grid on which everything is computed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from odc.geo.geom import BoundingBox, Geometry, box

from glaciercube.errors import OutlineError, RegionError

if TYPE_CHECKING:
    import geopandas as gpd

__all__ = ["Bounds", "Region", "choose_crs", "read_outlines"]

Bounds = tuple[float, float, float, float]

# RGI 6 calls its identifier RGIId, RGI 7 rgi_id; `outline` and `id` are ours and everybody's.
_ID_COLUMNS = ("outline", "RGIId", "rgi_id", "glims_id", "GLIMSId", "glac_id", "id")

# A UTM zone is 6 degrees wide; beyond about three zones its scale error passes 1 % at mid-latitudes.
_UTM_MAX_WIDTH = 18.0


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
        target = _metric_crs(crs or choose_crs(tuple(geographic.total_bounds)))
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

        ``west > east`` where the grid crosses the antimeridian.
        """
        extent = self.geobox.extent.segmented(self.resolution * 64).to_crs("EPSG:4326")
        longitudes, latitudes = zip(*(point for ring in _rings(extent) for point in ring), strict=True)
        if max(longitudes) - min(longitudes) > 180.0:
            wrapped = [lon % 360.0 for lon in longitudes]
            west, east = min(wrapped), max(wrapped)
            return (_signed(west), min(latitudes), _signed(east), max(latitudes))
        return (min(longitudes), min(latitudes), max(longitudes), max(latitudes))

    @property
    def longitude(self) -> float:
        """Longitude of the region's middle in degrees; decides the solar day."""
        west, _, east, _ = self.bbox
        return _signed((west + (east - west) % 360.0 / 2.0) % 360.0)


def choose_crs(bounds: Sequence[float]) -> str:
    """Choose a metric CRS from geographic bounds.

    UTM by default; Universal Polar Stereographic beyond 84 N, Antarctic polar stereographic (EPSG:3031) beyond
    80 S; NSIDC polar stereographic (EPSG:3413 / EPSG:3031) for high-latitude regions too wide for UTM.

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
    zone = min(math.floor((longitude + 180.0) / 6.0) + 1, 60)
    return f"EPSG:{(32600 if latitude >= 0 else 32700) + zone}"


def read_outlines(outlines: str | Path | gpd.GeoDataFrame, *, glacier: str | None = None) -> gpd.GeoDataFrame:
    """Read glacier outlines and give each a unique id.

    Parameters
    ----------
    outlines : path or GeoDataFrame
        Polygons in any CRS.
    glacier : str or None
        Keep only the glacier with this id.

    Returns
    -------
    GeoDataFrame
        Columns ``outline`` (str, unique), those of the source, and polygon geometry.

    Raises
    ------
    OutlineError
        If the file cannot be read, has no CRS, no polygons, or lacks the glacier.
    """
    import geopandas as gpd

    if isinstance(outlines, str | Path):
        source = str(outlines)
        try:
            frame = gpd.read_file(outlines)
        except Exception as error:
            raise OutlineError(
                f"cannot read the outlines {source} ({str(error).split(';')[0]})", "give a GeoJSON or GeoPackage"
            ) from error
    else:
        source, frame = "given as a GeoDataFrame", outlines.copy()
    if frame.crs is None:
        raise OutlineError(f"the outlines {source} carry no CRS", "set one, for instance with GeoDataFrame.set_crs")
    frame = frame[frame.geometry.notna() & frame.geometry.geom_type.isin(["Polygon", "MultiPolygon"])]
    if frame.empty:
        raise OutlineError(f"the outlines {source} hold no polygon", "give glacier outlines as polygons")
    frame = _with_ids(frame.reset_index(drop=True))
    return frame if glacier is None else _one_glacier(frame, glacier, source)


def _with_ids(frame: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    column = next((name for name in _ID_COLUMNS if name in frame.columns), None)
    ids = frame[column].astype(str) if column else [f"outline-{i}" for i in range(len(frame))]
    frame = frame.assign(outline=list(ids))
    if frame["outline"].is_unique:
        return frame
    # Two parts of one glacier are one outline.
    return frame.dissolve(by="outline", as_index=False)


def _one_glacier(frame: gpd.GeoDataFrame, glacier: str, source: str) -> gpd.GeoDataFrame:
    found = frame[frame["outline"] == glacier]
    for column in _ID_COLUMNS:
        if found.empty and column in frame.columns:
            found = frame[frame[column].astype(str) == glacier]
    if found.empty:
        example = ", ".join(frame["outline"].head(3))
        raise OutlineError(f"no glacier {glacier!r} in the outlines {source}", f"its ids look like {example}")
    return found.reset_index(drop=True)


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


def _rings(geometry: Geometry) -> list[list[tuple[float, float]]]:
    shape: Any = geometry.geom
    parts = list(shape.geoms) if hasattr(shape, "geoms") else [shape]
    return [[(float(x), float(y)) for x, y, *_ in part.exterior.coords] for part in parts]


def _signed(longitude: float) -> float:
    return (longitude + 180.0) % 360.0 - 180.0
