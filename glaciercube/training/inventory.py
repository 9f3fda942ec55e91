"""Glacier inventories as truth: RGI 6 and 7, GLIMS or the user's own outlines, each with its date, on a cube's grid."""

from __future__ import annotations

import hashlib
import logging
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import shapely

from glaciercube.errors import OutlineError
from glaciercube.region.outlines import ids_of, read_polygons
from glaciercube.region.sun import DAYS_PER_YEAR

if TYPE_CHECKING:
    import geopandas as gpd
    from odc.geo.geobox import GeoBox

__all__ = ["DRAWN_ON_IMAGE", "Inventory", "outline_date", "read_inventory"]

_log = logging.getLogger(__name__)

#: Said instead of a date, of outlines that were drawn on the images that they are held against.
DRAWN_ON_IMAGE = "image"

# As-of date of an outline: RGI 7 and GLIMS call it src_date, RGI 6 BgnDate and EndDate (RGI 7.0 user guide, "Data
# fields"); the others are what people write.
_DATE_COLUMNS = ("src_date", "bgndate", "date", "image_date", "img_date", "acquisition_date", "year")
# GLIMS keeps polygons of each kind in rows of their own (GLIMS, "Description of fields"): what a glacier is, what is
# not of it, and what lies on it. Lakes and the rest say nothing of ice.
_GLACIER, _ROCK, _DEBRIS = "glac_bound", "intrnl_rock", "debris_cov"
# Square metres of overlap of two glaciers that are told; less is how lines are drawn.
_OVERLAP = 50_000.0


@dataclass(frozen=True)
class Inventory:
    """Outlines on a grid.

    Attributes
    ----------
    outlines : GeoDataFrame
        In the grid's CRS: ``glacier`` (str, id; of several outlines where a glacier was drawn at several dates),
        ``date`` (datetime64, NaT where it is not known) and polygons.
    debris : GeoDataFrame or None
        Polygons of debris, where the inventory or the user has them.
    source : str
        What to call it in errors.
    drawn_on_image : bool
        Whether every outline has the date of the image that it is held against.
    messages : tuple of str
        What was noticed on the way.
    """

    outlines: gpd.GeoDataFrame
    debris: gpd.GeoDataFrame | None
    source: str
    drawn_on_image: bool = False
    messages: tuple[str, ...] = field(default=())

    @property
    def fingerprint(self) -> str:
        """Sha256 (hex) over the outlines: whose, of when, and where."""
        digest = hashlib.sha256(str(self.drawn_on_image).encode())
        for glacier, date in zip(self.outlines["glacier"], self.outlines["date"].to_numpy(), strict=True):
            digest.update(f"{glacier}|{date}|".encode())
        for shape in shapely.to_wkb(self.outlines.geometry.to_numpy()):
            digest.update(shape)
        return digest.hexdigest()

    def nearest_in_time(self, time: np.datetime64) -> npt.NDArray[np.int64]:
        """Rows of the outlines to hold against an image: of each glacier the one drawn nearest to its date.

        Parameters
        ----------
        time : numpy.datetime64
            Of the image.

        Returns
        -------
        (outline,) int64
            Rising; an outline whose date is not known is taken where its glacier has no other.
        """
        if self.drawn_on_image or self.outlines["glacier"].is_unique:
            return np.arange(len(self.outlines))
        away = np.abs(self.outlines["date"].to_numpy().astype("datetime64[s]") - time.astype("datetime64[s]"))
        days = away.astype("timedelta64[D]").astype(float)
        table = pd.DataFrame({"glacier": self.outlines["glacier"], "days": np.where(np.isnat(away), np.inf, days)})
        rows = table.sort_values("days", kind="stable").drop_duplicates("glacier").index.to_numpy()
        return np.sort(np.asarray(rows, np.int64))

    def ages(self, time: np.datetime64) -> npt.NDArray[np.float64]:
        """Years from every outline's date to an image; NaN where it is not known."""
        if self.drawn_on_image:
            return np.zeros(len(self.outlines))
        since = time.astype("datetime64[s]") - self.outlines["date"].to_numpy().astype("datetime64[s]")
        days = since.astype("timedelta64[D]").astype(float)
        return np.where(np.isnat(since), np.nan, days / DAYS_PER_YEAR)


def read_inventory(
    outlines: str | Path | gpd.GeoDataFrame,
    geobox: GeoBox,
    *,
    date: str | None = None,
    date_column: str | None = None,
    debris: str | Path | gpd.GeoDataFrame | None = None,
    margin: float = 5000.0,
) -> Inventory:
    """Read the outlines near a grid, with their dates.

    Parameters
    ----------
    outlines : path or GeoDataFrame
        RGI 6 or 7, GLIMS (whose rocks are cut out and whose debris is kept), or polygons of the user's own, in any CRS.
    geobox : GeoBox
        The grid.
    date : str or None
        Of all outlines, where the file says none: such as ``"2015-08-30"``, a year, or ``"image"`` for outlines that
        were drawn on the images themselves.
    date_column : str or None
        Where the file says it; ``src_date`` (RGI 7, GLIMS), ``BgnDate`` and ``EndDate`` (RGI 6), ``date`` or ``year``
        by default.
    debris : path or GeoDataFrame or None
        Polygons of debris cover.
    margin : float
        Metres around the grid within which outlines are kept.

    Raises
    ------
    OutlineError
        If the file cannot be read, no outline meets the grid, or none has a date and none is given.
    """
    frame, source = read_polygons(outlines)
    frame = _near(frame, geobox, margin)
    rows = [str(name) for name in frame.columns]
    kinds = next((name for name in rows if name.lower() == "line_type"), None)
    found = None if debris is None else _near(read_polygons(debris)[0], geobox, margin)
    if kinds is not None:
        kind = frame[kinds].astype(str).str.lower()
        found = frame[kind == _DEBRIS] if found is None and (kind == _DEBRIS).any() else found
        glaciers = frame[kind == _GLACIER]
        if "glac_stat" in frame:
            glaciers = glaciers[glaciers["glac_stat"].astype(str).str.lower() != "gone"]
        frame = _without_rock(glaciers, frame[kind == _ROCK])
    whole = shapely.box(*geobox.boundingbox.bbox)
    if frame.empty or not frame.intersects(whole).any():
        raise _apart(source, read_polygons(outlines)[0], geobox)
    dates, messages = _dates(frame, source, date, date_column)
    kept = frame.assign(glacier=ids_of(frame), date=dates)[["glacier", "date", frame.geometry.name]]
    kept = kept.rename_geometry("geometry") if frame.geometry.name != "geometry" else kept
    messages += _overlapping(kept)
    for message in messages:
        _log.warning("%s: %s", source, message)
    return Inventory(kept.reset_index(drop=True), found, source, date == DRAWN_ON_IMAGE, tuple(messages))


def outline_date(value: Any, end: Any = None) -> np.datetime64:
    """As-of date of an outline.

    Parameters
    ----------
    value : str, int, float or datetime
        ISO 8601 (RGI 7, GLIMS), ``YYYYMMDD`` with 99 for a month or day that is not known and -9999999 for nothing at
        all (RGI 6), or a year.
    end : as value, or None
        Of a range, as RGI 6 has it: the date is its middle.

    Returns
    -------
    numpy.datetime64
        In seconds; the middle of a year or month of which no more is known; NaT where nothing is.
    """
    first, last = _one_date(value), _one_date(end)
    if np.isnat(first) or np.isnat(last) or last <= first:
        return first
    return first + (last - first) // 2


def _one_date(value: Any) -> np.datetime64:
    nothing = np.datetime64("NaT", "s")
    if value is None or (not isinstance(value, str) and pd.isna(value)):
        return nothing
    if isinstance(value, np.integer | np.floating | int | float):
        value = f"{value:.0f}"
    text = str(value).strip()
    compact = re.fullmatch(r"(\d{4})(\d{2})(\d{2})", text)
    year, month, day = compact.groups() if compact else (text, "99", "99")
    if re.fullmatch(r"[12]\d{3}", year):
        month, day = ("07", "02") if not "01" <= month <= "12" else (month, "15" if not "01" <= day <= "31" else day)
        text = f"{year}-{month}-{day}"
    parsed = pd.to_datetime(text, errors="coerce", utc=True)
    return nothing if pd.isna(parsed) else np.datetime64(parsed.tz_localize(None), "s")


def _dates(
    frame: gpd.GeoDataFrame, source: str, date: str | None, column: str | None
) -> tuple[npt.NDArray[np.datetime64], list[str]]:
    """Date of every outline, and what is to be told."""
    columns = {str(name).lower(): str(name) for name in frame.columns}
    if column is not None and column.lower() not in columns:
        raise OutlineError(f"the outlines {source} have no column {column!r}", f"they have {', '.join(frame.columns)}")
    named = column.lower() if column else next((name for name in _DATE_COLUMNS if name in columns), None)
    if date == DRAWN_ON_IMAGE:
        return np.full(len(frame), np.datetime64("NaT", "s")), []
    if named is None or date is not None:
        if date is None:
            raise OutlineError(
                f"the outlines {source} say nowhere when they were drawn",
                "give their date, the column that has it, or 'image' if they were drawn on the images themselves",
            )
        given = outline_date(date)
        if np.isnat(given):
            raise OutlineError(f"{date!r} is no date of outlines", "write it like 2015-08-30, 2015, or image")
        return np.full(len(frame), given), []
    ends = frame[columns["enddate"]] if named == "bgndate" and "enddate" in columns else [None] * len(frame)
    pairs = zip(frame[columns[named]], ends, strict=True)
    dates = np.array([outline_date(start, end) for start, end in pairs], "datetime64[s]")
    unknown = int(np.isnat(dates).sum())
    if unknown == len(dates):
        raise OutlineError(
            f"the column {columns[named]!r} of the outlines {source} holds no date", "give their date, or the column"
        )
    told = f"{unknown} of {len(dates)} outlines have no date, and their ground counts as unknown"
    return dates, [told] if unknown else []


def _near(frame: gpd.GeoDataFrame, geobox: GeoBox, margin: float) -> gpd.GeoDataFrame:
    """What lies near the grid, in its CRS."""
    # A box in degrees first: what is far away may have no place on the map at all.
    from glaciercube.region.bounds import search_boxes

    geographic = frame.to_crs("EPSG:4326")
    meets = np.zeros(len(frame), bool)
    for box in search_boxes(geobox, margin):
        for turn in (-360.0, 0.0, 360.0):
            west, south, east, north = box
            meets |= geographic.intersects(shapely.box(west + turn, south, east + turn, north)).to_numpy()
    projected = frame[meets].to_crs(str(geobox.crs))
    reach = shapely.box(*geobox.boundingbox.bbox).buffer(margin)
    return projected[projected.intersects(reach)].reset_index(drop=True)


def _without_rock(glaciers: gpd.GeoDataFrame, rock: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """Glaciers less the rock within them: GLIMS keeps it in polygons of its own, of the same analysis."""
    analysis = next((str(name) for name in glaciers.columns if str(name).lower() == "anlys_id"), None)
    if rock.empty or analysis is None:
        return glaciers
    holes = rock.dissolve(by=analysis).geometry
    cut = [
        shape.difference(holes[number]) if number in holes.index else shape
        for number, shape in zip(glaciers[analysis], glaciers.geometry, strict=True)
    ]
    return glaciers.set_geometry(cut, crs=glaciers.crs)


def _overlapping(frame: gpd.GeoDataFrame) -> list[str]:
    """Ground that two glaciers claim."""
    shapes, ids = frame.geometry.to_numpy(), frame["glacier"].to_numpy()
    first, second = shapely.STRtree(shapes).query(shapes, predicate="intersects")
    chosen = (first < second) & (ids[first] != ids[second])
    shared = float(shapely.area(shapely.intersection(shapes[first[chosen]], shapes[second[chosen]])).sum())
    if shared <= _OVERLAP:
        return []
    return [f"glaciers overlap by {shared / 1e6:.2f} km2, which is glacier, and belongs to the first of them"]


def _apart(source: str, frame: gpd.GeoDataFrame, geobox: GeoBox) -> OutlineError:
    from glaciercube.region.bounds import geographic_bounds

    def said(bounds: Any) -> str:
        return ", ".join(f"{value:.2f}" for value in bounds)

    there, here = frame.to_crs("EPSG:4326").total_bounds, geographic_bounds(geobox)
    return OutlineError(
        f"none of the {len(frame)} outlines {source} meets the cube: they lie within {said(there)} degrees, the cube "
        f"within {said(here)}",
        "give outlines of the place, and see that their CRS is the one that they were drawn in",
    )
