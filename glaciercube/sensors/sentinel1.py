"""Sentinel-1 radiometrically terrain-corrected gamma nought backscatter."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pystac
import xarray as xr

from glaciercube.errors import BandError
from glaciercube.sensors.base import Band, SceneFacts

__all__ = ["Sentinel1", "decibel"]


@dataclass(frozen=True)
class Sentinel1:
    """Sentinel-1 RTC: gamma nought as linear power."""

    name: str = "sentinel-1"
    node: str = "sentinel1"
    collections: tuple[str, ...] = ("sentinel-1-rtc",)
    static: bool = False
    bands: tuple[Band, ...] = (
        Band("vv", ("vv", "VV"), "float32", -32768),
        Band("vh", ("vh", "VH"), "float32", -32768),
    )

    def facts(self, item: pystac.Item) -> SceneFacts:
        """Pass and orbit of a scene; see `Sensor.facts`."""
        if "grd" in (item.collection_id or "").lower().split("-"):
            raise BandError(
                f"scene {item.id} is raw Sentinel-1 GRD, uncalibrated and without a usable map grid",
                "use a terrain-corrected collection such as sentinel-1-rtc",
            )
        orbit = str(item.properties.get("sat:orbit_state", ""))
        relative = str(item.properties.get("sat:relative_orbit", ""))
        return SceneFacts(
            key=item.id,
            overpass="/".join(part for part in (orbit, relative) if part),
            notes={"orbit_state": orbit or None, "relative_orbit": relative or None},
        )

    def decode(self, raw: xr.Dataset, offset: xr.DataArray) -> xr.Dataset:  # noqa: ARG002 - power has no offset
        """Linear power (``vv``, ``vh``) and decibels (``vv_db``, ``vh_db``); NaN where nodata or not positive."""
        out = {}
        for band in map(str, raw.data_vars):
            stored = raw[band].astype("float32")
            # Power is positive; the provider's nodata is a large negative number and borders may hold exact zeros.
            power = stored.where(stored > 0)
            out[band] = power.assign_attrs(units="1", long_name=f"{band.upper()} gamma nought, linear power")
            out[f"{band}_db"] = decibel(power).assign_attrs(units="dB", long_name=f"{band.upper()} gamma nought")
        return xr.Dataset(out)


def decibel(power: xr.DataArray) -> xr.DataArray:
    """Ten times the decimal logarithm of linear power; NaN stays NaN.

    Parameters
    ----------
    power : DataArray
        Linear power, positive or NaN.

    Returns
    -------
    DataArray
        Same dims, float32, dB.
    """
    logarithm: xr.DataArray = xr.apply_ufunc(np.log10, power, dask="parallelized", output_dtypes=["float32"])
    return logarithm * np.float32(10.0)
