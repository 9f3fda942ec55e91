"""Glacier outlines: read from any vector file, each with a unique id."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from glaciercube.errors import OutlineError

if TYPE_CHECKING:
    import geopandas as gpd

__all__ = ["ID_COLUMNS", "ids_of", "read_outlines", "read_polygons"]

_log = logging.getLogger(__name__)

#: RGI 6 calls its identifier RGIId, RGI 7 rgi_id; `outline` and `id` are ours and everybody's.
ID_COLUMNS = ("outline", "RGIId", "rgi_id", "glims_id", "GLIMSId", "glac_id", "id")


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
    frame, source = read_polygons(outlines)
    frame = _with_ids(frame)
    return frame if glacier is None else _one_glacier(frame, glacier, source)


def read_polygons(outlines: str | Path | gpd.GeoDataFrame) -> tuple[gpd.GeoDataFrame, str]:
    """Read polygons as they are, with those mended that cross themselves.

    Parameters
    ----------
    outlines : path or GeoDataFrame
        Polygons in any CRS.

    Returns
    -------
    (GeoDataFrame, str)
        Rows with polygons, and what to call their source in errors. What was mended is logged.

    Raises
    ------
    OutlineError
        If the file cannot be read, has no CRS or no polygons, or holds metres where its CRS says degrees.
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
        raise OutlineError(
            f"the outlines {source} carry no CRS",
            "put the .prj of a shapefile beside it; or, if you know the CRS, give it with GeoDataFrame.set_crs or "
            "ogr2ogr -a_srs EPSG:NUMBER NEW.gpkg OLD",
        )
    areal = frame.geometry.notna() & frame.geometry.geom_type.isin(["Polygon", "MultiPolygon"]) & ~frame.is_empty
    if not areal.any():
        raise OutlineError(f"the outlines {source} hold no polygon", "give glacier outlines as polygons")
    if not areal.all():
        _log.warning("%d of %d rows of the outlines %s are no polygons: left out", (~areal).sum(), len(frame), source)
    frame = frame[areal].reset_index(drop=True)
    reach = max(abs(float(value)) for value in frame.total_bounds)
    if frame.crs.is_geographic and reach > 540:
        raise OutlineError(
            f"the outlines {source} have coordinates up to {reach:.0f} and a CRS in degrees ({frame.crs.name})",
            "give them the CRS that they were drawn in: ogr2ogr -a_srs EPSG:NUMBER NEW.gpkg OLD, or "
            "GeoDataFrame.set_crs(..., allow_override=True)",
        )
    return _mended(frame, source), source


def _mended(frame: gpd.GeoDataFrame, source: str) -> gpd.GeoDataFrame:
    """Polygons that cross themselves, as the ground that they enclose."""
    import shapely

    broken = ~frame.geometry.is_valid
    if not broken.any():
        return frame
    found = shapely.make_valid(frame.geometry[broken].to_numpy(), method="structure", keep_collapsed=False)
    mended = [shapely.multipolygons([p for p in shapely.get_parts(g) if p.geom_type == "Polygon"]) for g in found]
    _log.warning("%d of %d polygons of the outlines %s crossed themselves: mended", broken.sum(), len(frame), source)
    frame.loc[broken, frame.geometry.name] = mended
    return frame[~frame.geometry.is_empty].reset_index(drop=True)


def ids_of(frame: gpd.GeoDataFrame) -> list[str]:
    """Id of every row: of the first of `ID_COLUMNS` that there is, or else its number."""
    column = next((name for name in ID_COLUMNS if name in frame.columns), None)
    return list(frame[column].astype(str)) if column else [f"outline-{i}" for i in range(len(frame))]


def _with_ids(frame: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    frame = frame.assign(outline=ids_of(frame))
    if frame["outline"].is_unique:
        return frame
    # Two parts of one glacier are one outline.
    return frame.dissolve(by="outline", as_index=False)


def _one_glacier(frame: gpd.GeoDataFrame, glacier: str, source: str) -> gpd.GeoDataFrame:
    found = frame[frame["outline"] == glacier]
    for column in ID_COLUMNS:
        if found.empty and column in frame.columns:
            found = frame[frame[column].astype(str) == glacier]
    if found.empty:
        example = ", ".join(frame["outline"].head(3))
        raise OutlineError(f"no glacier {glacier!r} in the outlines {source}", f"its ids look like {example}")
    return found.reset_index(drop=True)
