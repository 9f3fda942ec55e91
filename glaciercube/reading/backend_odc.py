"""Reading with odc-stac."""

from __future__ import annotations

import odc.stac
import xarray as xr

from glaciercube.reading.reader import Driver
from glaciercube.reading.request import Request

__all__ = ["read"]


def read(request: Request) -> xr.Dataset:
    """Lay a request's layers on its grid, lazily; see `glaciercube.reading.request.Backend`."""
    nodata = {band.band: float("nan") if band.nodata is None else band.nodata for band in request.bands}
    assets = {band.band: {"data_type": band.dtype, "nodata": nodata[band.band]} for band in request.bands}
    raw: xr.Dataset = odc.stac.load(
        request.items,
        bands=list(nodata),
        geobox=request.geobox,
        chunks={"time": 1, "y": request.cell, "x": request.cell},
        groupby="time",
        resampling=dict(request.resampling),
        stac_cfg={request.node: {"assets": assets, "warnings": "ignore"}},
        fail_on_error=True,
        driver=Driver(request.signing, request.read),
    )
    for band in request.bands:
        raw[band.band].attrs.update(nodata=nodata[band.band], scale=band.scale)
    return raw
