"""Copernicus DEM GLO-30: one surface for all dates."""

from __future__ import annotations

from dataclasses import dataclass

import pystac
import xarray as xr

from glaciercube.sensors.base import Band, SceneFacts, item_time

__all__ = ["CopernicusDEM"]


@dataclass(frozen=True)
class CopernicusDEM:
    """Copernicus DEM, metres above the EGM2008 geoid."""

    name: str = "dem"
    node: str = "terrain"
    collections: tuple[str, ...] = ("cop-dem-glo-30",)
    static: bool = True
    bands: tuple[Band, ...] = (Band("elevation", ("data", "elevation", "dem"), "float32", float("nan"), resolution=30),)

    def facts(self, item: pystac.Item) -> SceneFacts:
        """All tiles belong to one surface; see `Sensor.facts`."""
        return SceneFacts(key=item.id, overpass="dem", notes={"epoch": item_time(item).date().isoformat()})

    def decode(self, raw: xr.Dataset, offset: xr.DataArray) -> xr.Dataset:  # noqa: ARG002 - metres as stored
        """Elevation in metres, NaN where unknown."""
        elevation = raw["elevation"].astype("float32")
        nodata = raw["elevation"].attrs.get("nodata")
        if nodata is not None and nodata == nodata:  # noqa: PLR0124 - a NaN differs from itself
            elevation = elevation.where(elevation != nodata)
        attrs = {"units": "m", "standard_name": "height_above_geopotential_datum", "long_name": "elevation (EGM2008)"}
        return xr.Dataset({"elevation": elevation.assign_attrs(attrs)})
