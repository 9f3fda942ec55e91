"""Copernicus DEM GLO-30: one surface for all dates."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import pystac
import xarray as xr

from glaciercube.sensors.base import Band, SceneFacts, item_time

__all__ = ["GEOID", "CopernicusDEM"]

# Copernicus DEM Product Handbook, section 2: heights are above EGM2008.
GEOID: Final = "EGM2008 (EPSG:3855)"
# Voids are -32767 in all products, also where an item does not declare it; the deepest land is at -430 m.
_LOWEST: Final = -1000.0
# GLO-30 and GLO-90 name a tile by its south-western corner.
_TILE: Final = re.compile(r"\d\d_[NS]\d\d_\d\d_[EW]\d{3}_\d\d")


@dataclass(frozen=True)
class CopernicusDEM:
    """Copernicus DEM, metres above the EGM2008 geoid."""

    name: str = "dem"
    node: str = "terrain"
    collections: tuple[str, ...] = ("cop-dem-glo-30",)
    static: bool = True
    bands: tuple[Band, ...] = (Band("elevation", ("data", "elevation", "dem"), "float32", float("nan"), resolution=30),)

    def facts(self, item: pystac.Item) -> SceneFacts:
        """All tiles belong to one surface; of a tile's versions the newest counts; see `Sensor.facts`."""
        tile = _TILE.search(item.id)
        when = item_time(item).date().isoformat()
        return SceneFacts(
            key=f"dem/{tile.group(0)}" if tile else item.id,
            rank=(when, str(item.properties.get("updated", item.properties.get("created", "")))),
            overpass="dem",
            notes={"epoch": when, "geoid": GEOID},
        )

    def decode(self, raw: xr.Dataset, offset: xr.DataArray) -> xr.Dataset:  # noqa: ARG002 - metres as stored
        """Elevation in metres above the geoid, NaN where unknown: nodata, NaN, and what no land is as low as."""
        elevation = raw["elevation"].astype("float32")
        nodata = raw["elevation"].attrs.get("nodata")
        known = elevation > _LOWEST  # false for NaN too
        if nodata is not None and nodata == nodata:  # noqa: PLR0124 - a NaN differs from itself
            known &= elevation != nodata
        attrs = {
            "units": "m",
            "standard_name": "height_above_geopotential_datum",
            "long_name": "elevation",
            "geoid": GEOID,
        }
        return xr.Dataset({"elevation": elevation.where(known).assign_attrs(attrs)})
