"""Reading with stackstac: its stack of layers, our driver for the pixels.

stackstac 0.5 needs repairs, which are all made here: it does not know ``proj:code``, takes footprints from four
corners, cannot rescale to float32, has one resampling for all bands and no mosaics, drops scenes beside the grid, and
its own reader may turn errors into "no data". So it gets plain items whose footprint on the grid is known, one band
at a time, and `_CellReader` in place of its reader; mosaics are made as odc-stac makes them.
"""

from __future__ import annotations

import datetime as dt
import functools
import importlib
from collections.abc import Sequence
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt
import odc.stac
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords
from odc.loader.types import RasterLoadParams, RasterSource
from rasterio.enums import Resampling
from rasterio.windows import Window

from glaciercube.errors import ConfigError, CubeError
from glaciercube.reading.reader import Driver
from glaciercube.reading.request import Request
from glaciercube.sensors import BandSource, item_time

__all__ = ["read"]


def read(request: Request) -> xr.Dataset:
    """Lay a request's layers on its grid, lazily; see `glaciercube.reading.request.Backend`.

    Raises
    ------
    ConfigError
        If stackstac is not installed.
    CubeError
        If the grid's CRS has no EPSG code, by which alone stackstac names one.
    """
    stack = _stackstac().stack
    geobox = request.geobox
    epsg = geobox.crs.to_epsg() if geobox.crs else None
    if epsg is None:
        raise CubeError("stackstac cannot read onto a CRS without an EPSG code", "use load: {backend: odc}")
    scenes = sorted(_plain(request, int(epsg)), key=lambda scene: (scene["time"], scene["id"]))
    labels = sorted({scene["time"] for scene in scenes})
    driver = Driver(request.signing, request.read)
    reader = functools.partial(_CellReader, geobox=geobox, driver=driver, env=driver.capture_env())
    coords = {**xr_coords(geobox), "time": xr.DataArray([label.replace(tzinfo=None) for label in labels], dims="time")}
    raw = xr.Dataset(coords=coords)
    for band in request.bands:
        held = [scene for scene in scenes if band.band in scene["assets"]]
        nodata = np.dtype(band.dtype).type(np.nan if band.nodata is None else band.nodata)
        layers = _layers(functools.partial(stack, reader=reader, epsg=int(epsg)), held, band, nodata, request)
        observed: dict[dt.datetime, list[da.Array]] = {label: [] for label in labels}
        for scene, layer in zip(held, layers, strict=True):
            observed[scene["time"]].append(layer)
        slices = [_mosaic(observed[label], nodata, request) for label in labels]
        attrs = {"nodata": float(nodata), "scale": band.scale}
        raw[band.band] = (("time", *geobox.dimensions), da.stack(slices), attrs)
    return raw


def _stackstac() -> Any:
    try:
        return importlib.import_module("stackstac")
    except ImportError as error:
        raise ConfigError(
            "the backend stackstac is not installed",
            # It asks for pandas before 3 and works with 3: with its dependencies it would take pandas back.
            "pip install --no-deps stackstac, or write load: {backend: odc}",
        ) from error


def _plain(request: Request, epsg: int) -> list[dict[str, Any]]:
    """Scenes that touch the grid, as plain items: each asset with its bounds on the grid, which stackstac believes.

    A scene beside the grid keeps its observation but none of its assets: there is nothing of it to read.
    """
    nodata = {band.band: "nan" if band.nodata is None else band.nodata for band in request.bands}
    assets = {band.band: {"data_type": band.dtype, "nodata": nodata[band.band]} for band in request.bands}
    parsed = odc.stac.parse_items(request.items, {request.node: {"assets": assets, "warnings": "ignore"}})
    grid = request.geobox.boundingbox
    scenes = []
    for item, known in zip(request.items, parsed, strict=True):
        footprint = known.safe_geometry(request.geobox.crs)
        box = tuple(grid if footprint is None else footprint.boundingbox)
        met = box[0] < grid.right and box[2] > grid.left and box[1] < grid.top and box[3] > grid.bottom
        found = {
            name: {"href": asset.href, "proj:epsg": epsg, "proj:bbox": list(box)}
            for name, asset in item.assets.items()
            if met
        }
        label = item_time(item)
        properties = {"datetime": label.isoformat(), "proj:epsg": epsg, "proj:bbox": list(box)}
        scenes.append({"id": item.id, "time": label, "properties": properties, "assets": found})
    return scenes


def _layers(
    stack: Any, scenes: Sequence[dict[str, Any]], band: BandSource, nodata: Any, request: Request
) -> list[da.Array]:
    """One lazy layer (y, x) for each scene."""
    if not scenes:
        return []
    geobox = request.geobox
    stacked = stack(
        list(scenes),
        assets=[band.band],
        resolution=(abs(geobox.resolution.x), abs(geobox.resolution.y)),
        bounds=tuple(geobox.boundingbox),
        snap_bounds=False,
        resampling=Resampling[request.resampling[band.band]],
        chunksize=request.cell,
        dtype=np.dtype(band.dtype),
        fill_value=nodata,
        rescale=False,
        sortby_date=False,
        xy_coords=False,
        properties=False,
        band_coords=False,
        errors_as_nodata=(),
    ).data
    if stacked.shape != (len(scenes), 1, *geobox.shape):
        raise CubeError(
            f"stackstac made layers of shape {stacked.shape} for {len(scenes)} scenes on a grid of {geobox.shape}",
            "use load: {backend: odc}",
        )
    return [stacked[index, 0] for index in range(len(scenes))]


def _mosaic(layers: list[da.Array], nodata: Any, request: Request) -> da.Array:
    """The layers of one observation as one; where several have a pixel, the first by identifier wins, as with odc."""
    if not layers:
        empty: da.Array = da.full(tuple(request.geobox.shape), nodata, dtype=nodata.dtype, chunks=request.cell)
        return empty
    if len(layers) == 1:
        return layers[0]
    meta = np.empty((0, 0), nodata.dtype)
    merged: da.Array = da.map_blocks(_first, *layers, nodata=nodata, dtype=nodata.dtype, meta=meta)
    return merged


def _first(*layers: npt.NDArray[Any], nodata: Any) -> npt.NDArray[Any]:
    merged = layers[0]
    for layer in layers[1:]:
        missing = merged == nodata
        if merged.dtype.kind == "f":
            missing |= np.isnan(merged)
        merged = np.where(missing, layer, merged)
    return merged


class _CellReader:
    """What stackstac reads a file with: our driver, on whole cells of the grid."""

    def __init__(
        self,
        *,
        url: str,
        resampling: Resampling,
        dtype: npt.DTypeLike,
        fill_value: Any,
        geobox: GeoBox,
        driver: Driver,
        env: dict[str, Any],
        **_: Any,
    ) -> None:
        self.source = RasterSource(url)
        self.how = RasterLoadParams(str(np.dtype(dtype)), fill_value=float(fill_value), resampling=resampling.name)
        self.geobox, self.driver, self.env = geobox, driver, env

    def read(self, window: Window) -> npt.NDArray[Any]:
        """Pixels of one cell."""
        rows, columns = (slice(int(part.start), int(part.stop)) for part in window.toslices())
        cell = self.geobox[rows, columns]
        with self.driver.restore_env(self.env, self.driver.new_load(self.geobox)) as context:
            _, pixels = self.driver.open(self.source, context).read(self.how, cell)
        return pixels

    def close(self) -> None:
        """Nothing is held open."""
