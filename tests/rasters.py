"""Small made rasters of every kind that sensors store, for tests of reading."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pystac
import rasterio
import rasterio.warp
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling
from scipy.ndimage import gaussian_filter

from glaciercube.reading.request import Request
from glaciercube.sensors import BandSource

# Off the whole kilometres, and of odd size: overviews then are not exactly twice as coarse.
WEST, NORTH, PIXEL = 499_030.0, 6_652_470.0, 10.0
ROWS, COLUMNS = 613, 627
CRS = "EPSG:32606"
WHEN = dt.datetime(2024, 7, 1, 21, tzinfo=dt.UTC)


@dataclass(frozen=True)
class Made:
    """A file, and how its pixels are stored."""

    name: str
    path: Path
    dtype: str
    nodata: float
    categorical: bool = False
    shrinks: tuple[int, ...] = ()
    silent: bool = False  # the file does not say its nodata, and the item does

    @property
    def source(self) -> BandSource:
        nodata = None if np.isnan(self.nodata) else self.nodata
        return BandSource(self.name, self.name, self.dtype, nodata, categorical=self.categorical)


def make(folder: Path, name: str, dtype: str, nodata: float, style: str = "built", **options: Any) -> Made:
    """Write a file of 10 m pixels with holes: with overviews down to 16 (`built`), as GDAL's COG (`cog`), or `none`."""
    rng = np.random.default_rng(sum(name.encode()))
    field = gaussian_filter(rng.random((ROWS, COLUMNS)), 2.0)
    field = (field - field.min()) / np.ptp(field)
    classes = bool(options.get("categorical"))
    pixels = (1 + np.floor(field * 11) if classes else 200 + 9000 * field).astype(dtype)
    pixels[field < 0.25] = nodata
    silent = bool(options.get("silent"))
    path = folder / f"{name}.tif"
    profile: dict[str, Any] = {
        "driver": "COG" if style == "cog" else "GTiff",
        "height": ROWS,
        "width": COLUMNS,
        "count": 1,
        "dtype": dtype,
        "crs": CRS,
        "transform": Affine(PIXEL, 0, WEST, 0, -PIXEL, NORTH),
        "nodata": None if silent else nodata,
        "compress": "DEFLATE",
    }
    profile |= {"blocksize": 128} if style == "cog" else {"tiled": True, "blockxsize": 128, "blockysize": 128}
    with rasterio.open(path, "w", **profile) as target:
        target.write(pixels, 1)
    shrinks = {"cog": (2, 4, 8), "built": (2, 4, 8, 16), "none": ()}[style]
    if style == "built":
        with rasterio.open(path, "r+") as target:
            target.build_overviews(list(shrinks), Resampling.mode if classes else Resampling.average)
    with rasterio.open(path) as source:
        assert tuple(source.overviews(1)) == shrinks, source.overviews(1)
    return Made(name, path, dtype, nodata, classes, shrinks, silent)


def request_of(
    files: list[Made], geobox: GeoBox, cell: int, resampling: dict[str, str], *, projected: bool = True
) -> Request:
    """What a backend is asked for: one scene with a band in each file."""
    west, south, east, north = rasterio.warp.transform_bounds(
        CRS, "EPSG:4326", WEST, NORTH - ROWS * PIXEL, WEST + COLUMNS * PIXEL, NORTH
    )
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    properties: dict[str, Any] = {}
    if projected:
        transform = [PIXEL, 0.0, WEST, 0.0, -PIXEL, NORTH]
        properties = {"proj:code": CRS, "proj:shape": [ROWS, COLUMNS], "proj:transform": transform}
    item = pystac.Item("made", {"type": "Polygon", "coordinates": [ring]}, [west, south, east, north], WHEN, properties)
    item.stac_extensions = ["https://stac-extensions.github.io/projection/v2.0.0/schema.json"]
    item.collection_id = "made"
    for made in files:
        fields = {"raster:bands": [{"data_type": made.dtype, "nodata": made.source.nodata or 0}]}
        if np.isnan(made.nodata):
            fields["raster:bands"][0]["nodata"] = "nan"
        item.add_asset(made.name, pystac.Asset(str(made.path), media_type=pystac.MediaType.COG, extra_fields=fields))
    bands = tuple(made.source for made in files)
    return Request("made", (item,), bands, 0.0, geobox, cell, resampling)


def warped(made: Made, level: int | None, cell: GeoBox, method: str) -> npt.NDArray[Any]:
    """What rasterio itself makes of one overview on one cell."""
    options: dict[str, Any] = {} if level is None else {"overview_level": level}
    pixels = np.zeros(cell.shape, made.dtype)
    with rasterio.open(made.path, **options) as source:
        rasterio.warp.reproject(
            rasterio.band(source, 1),
            pixels,
            dst_crs=str(cell.crs),
            dst_transform=cell.transform,
            dst_nodata=made.nodata,
            resampling=Resampling[method],
            **({"src_nodata": made.nodata} if made.silent else {}),
        )
    return pixels
