"""Sentinel-1 radiometrically terrain-corrected gamma nought backscatter."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pystac
import xarray as xr

from glaciercube.errors import BandError
from glaciercube.sensors.base import Band, SceneFacts
from glaciercube.sensors.datatake import datatake_began, product_key

__all__ = [
    "CO_POLARIZED",
    "LAYOVER",
    "OBSERVED",
    "PLATFORM_DB",
    "POLARIZATIONS",
    "SHADOW",
    "Sentinel1",
    "decibel",
    "radar_mismatch",
]

POLARIZATIONS: Final = ("vv", "vh", "hh", "hv")
CO_POLARIZED: Final = ("vv", "hh")

# Bits of `layover_shadow`; 0 is no data.
OBSERVED, LAYOVER, SHADOW = 1, 2, 4

# dB added to a platform's backscatter so that it agrees with Sentinel-1A's. Each satellite is calibrated by itself,
# to 1 dB (3 sigma, Sentinel-1 SAR technical guide). A and B differ "in the order of 0.3 dB" on bright and medium
# targets and by more on dark ones (Schmidt et al., Radiometric Comparison within the Sentinel-1 SAR Constellation over
# a Wide Backscatter Range, Remote Sensing 2020, 12, 854), and updates of antenna patterns bring steps of up to 0.4 dB
# (doi:10.3390/rs15051377). No signed figure that holds for all times was found, and none at all for C and D. One that
# is made up would be worse than none: all are zero, and users give their own (`RadarOptions.platform_db`).
PLATFORM_DB: Final[Mapping[str, float]] = {f"sentinel-1{letter}": 0.0 for letter in "abcd"}

_GEOMETRY: Final[dict[str, dict[str, Any]]] = {
    "local_incidence": {"units": "degree", "long_name": "local incidence angle"},
    "layover_shadow": {
        "long_name": "radar geometry",
        "flag_masks": np.array([OBSERVED, LAYOVER, SHADOW], dtype="uint8"),
        "flag_meanings": "observed layover shadow",
    },
}

# Products that are not on a map: ground range detected, single look complex, ocean, raw.
_RAW_PRODUCTS: Final = frozenset({"grd", "slc", "ocn", "raw"})
_RAW_NAME = re.compile(r"^S1[A-D]_(?:IW|EW|S[1-6]|WV)_(GRD|SLC|OCN|RAW)[FHM_]?_", re.IGNORECASE)
_PLATFORM = re.compile(r"(?:sentinel-?1|^s1)([a-d])(?:_|$)", re.IGNORECASE)


@dataclass(frozen=True)
class Sentinel1:
    """Sentinel-1 RTC: gamma nought as linear power, in the polarisations that a scene has."""

    name: str = "sentinel-1"
    node: str = "sentinel1"
    collections: tuple[str, ...] = ("sentinel-1-rtc",)
    static: bool = False
    # A scene has one pair or a single one, so that no band is required by itself; `facts` asks for a co-polarised one.
    bands: tuple[Band, ...] = (
        *(Band(name, (name, name.upper()), "float32", -32768, required=False) for name in POLARIZATIONS),
        # Published by `glaciercube.rtc.make_rtc`, and read when asked for.
        Band("local_incidence", ("local_incidence",), "float32", float("nan"), required=False, default=False),
        Band("layover_shadow", ("layover_shadow",), "uint8", 0, categorical=True, required=False, default=False),
    )

    def facts(self, item: pystac.Item) -> SceneFacts:
        """Pass, orbit, mode and platform of a scene; see `Sensor.facts`.

        ``offset`` is the platform's correction in dB. ``notes`` keep ``platform``, ``instrument_mode``,
        ``orbit_state``, ``relative_orbit``, ``absolute_orbit``, ``polarizations``, ``looks`` and that correction;
        None where the item does not say.
        """
        _refuse_raw(item)
        present = self._polarizations(item)
        if not set(present) & set(CO_POLARIZED):
            raise BandError(
                f"scene {item.id} has neither VV nor HH (it has {', '.join(item.assets) or 'no assets'})",
                "leave it out, or choose a collection that publishes a co-polarised band",
            )
        notes = _notes(item, present)
        passed = (notes["platform"], notes["instrument_mode"], notes["orbit_state"], notes["relative_orbit"])
        return SceneFacts(
            key=product_key(item.id),
            rank=(str(item.properties.get("s1:processing_datetime", item.properties.get("created", ""))), item.id),
            overpass="/".join(str(part) for part in passed if part is not None),
            offset=float(notes["correction_db"]),
            notes=notes,
            began=datatake_began(item),
        )

    def _polarizations(self, item: pystac.Item) -> list[str]:
        pairs = [band for band in self.bands if band.name in POLARIZATIONS]
        keyed = [band.name for band in pairs if any(key in item.assets for key in band.assets)]
        # A provider may publish them under names of its own, which its profile knows and we do not.
        return keyed or [str(name).lower() for name in item.properties.get("sar:polarizations", ())]

    def decode(self, raw: xr.Dataset, offset: xr.DataArray) -> xr.Dataset:
        """Linear power (``vv``) and decibels (``vv_db``) of each polarisation; NaN where nodata or not positive.

        The offset is in dB, so that it multiplies power. ``local_incidence`` is degrees, ``layover_shadow`` uint8 flags
        (1 observed, 2 layover, 4 shadow; 0 no data).
        """
        out = {}
        factor = 10.0 ** (offset / 10.0)
        for band in map(str, raw.data_vars):
            if band not in POLARIZATIONS:
                out[band] = raw[band].assign_attrs(_GEOMETRY[band])
                continue
            stored = raw[band].astype("float32")
            # Power is positive; the provider's nodata is a large negative number and borders may hold exact zeros.
            power = stored.where(stored > 0)
            if bool((offset != 0).any()):
                power = power * factor.astype("float32")
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


def radar_mismatch(
    notes: Mapping[str, Any], *, orbit: str | int | None, polarizations: tuple[str, ...], instrument_mode: str | None
) -> str:
    """Why a scene is not what was asked for; empty if it is.

    Parameters
    ----------
    notes : mapping
        Of `Sentinel1.facts`.
    orbit : str or int or None
        ``"ascending"``, ``"descending"`` or a relative orbit (1 to 175); None takes all.
    polarizations : tuple of str
        Each must be there, such as ``("vv", "vh")``; empty takes all.
    instrument_mode : str or None
        ``"IW"`` (10 m) or ``"EW"`` (40 m); None takes all.
    """
    if orbit is not None and str(orbit).lower() not in (notes["orbit_state"], str(notes["relative_orbit"])):
        return f"orbit {notes['orbit_state']} {notes['relative_orbit']} is not {orbit}"
    missing = [name for name in polarizations if name.lower() not in notes["polarizations"]]
    if missing:
        return f"it has {'+'.join(notes['polarizations'])} and not {'+'.join(missing)}"
    if instrument_mode is not None and notes["instrument_mode"] != instrument_mode.upper():
        return f"mode {notes['instrument_mode']} is not {instrument_mode}"
    return ""


def _notes(item: pystac.Item, present: list[str]) -> dict[str, Any]:
    properties = item.properties
    orbit, relative = properties.get("sat:orbit_state"), properties.get("sat:relative_orbit")
    mode, absolute = properties.get("sar:instrument_mode"), properties.get("sat:absolute_orbit")
    looks = properties.get("sar:looks_equivalent_number")
    platform = _platform(item)
    return {
        "platform": platform,
        "instrument_mode": str(mode).upper() if mode else None,
        "orbit_state": str(orbit).lower() if orbit else None,
        "relative_orbit": int(relative) if relative is not None else None,
        "absolute_orbit": int(absolute) if absolute is not None else None,
        "polarizations": present,
        "looks": float(looks) if looks is not None else None,
        "correction_db": PLATFORM_DB.get(platform or "", 0.0),
    }


def _platform(item: pystac.Item) -> str | None:
    """``"sentinel-1a"`` and so on; None if the item names no single satellite."""
    for text in (str(item.properties.get("platform", "")), item.id):
        if found := _PLATFORM.search(text):
            return f"sentinel-1{found.group(1).lower()}"
    return None


def _refuse_raw(item: pystac.Item) -> None:
    """Refuse products in radar geometry, whatever their collection is called."""
    words = set(re.split(r"[^a-z0-9]+", (item.collection_id or "").lower()))
    # Terrain-corrected items go on to name the product that they were made from.
    if {"rtc", "nrb"} & (words | set(re.split(r"[^a-z0-9]+", item.id.lower()))):
        return
    named = _RAW_NAME.match(item.id)
    stated = str(item.properties.get("sar:product_type", "")).lower()
    kinds = _RAW_PRODUCTS & (words | {stated} | ({named.group(1).lower()} if named else set()))
    if kinds:
        kind = min(kinds).upper()
        raise BandError(
            f"scene {item.id} is raw Sentinel-1 {kind}, uncalibrated and without a usable map grid",
            "use a terrain-corrected collection such as sentinel-1-rtc, or make one from the SAFE product with "
            "glaciercube.rtc.make_rtc",
        )
