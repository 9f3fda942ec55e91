"""Sentinel-2 MSI: reflectance, the baseline offset, and what the scene classification says."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pystac
import xarray as xr

from glaciercube.sensors.base import Band, SceneFacts
from glaciercube.sensors.sun import sun_of

__all__ = [
    "BASELINE_OFFSET",
    "CLOUD_LAYERS",
    "OPTICAL_BANDS",
    "QUANTIFICATION",
    "SCL_CLOUD",
    "SCL_SHADOW",
    "SCL_SNOW",
    "Sentinel2",
    "choose_offset",
]

OPTICAL_BANDS: Final = ("blue", "green", "red", "nir", "swir16", "swir22")

# What the processor says of clouds, beside reflectance: classes, and probabilities in percent.
CLOUD_LAYERS: Final = ("scl", "cloud_probability", "snow_probability")

# Sentinel-2 products specification: DN = (reflectance - offset) * 10000, offset -0.1 since baseline 04.00.
QUANTIFICATION: Final = 1e-4
BASELINE_OFFSET: Final = -0.1
FIRST_OFFSET_BASELINE: Final = 4.0

# Classes of Sen2Cor's scene classification. Snow (11) is data, not cloud.
SCL_CLOUD: Final = (8, 9, 10)
SCL_SHADOW: Final = (3,)
SCL_SNOW: Final = 11

_LAYER_ATTRS: Final = {
    "scl": {"long_name": "Sen2Cor scene classification", "units": "1"},
    "cloud_probability": {"long_name": "Sen2Cor cloud probability", "units": "percent"},
    "snow_probability": {"long_name": "Sen2Cor snow probability", "units": "percent"},
}

_TILE = re.compile(r"(?:_T|MGRS-|_)(\d{1,2}[C-X][A-Z]{2})(?:_|$)")
# ESA's product name: platform, level, start of the datatake, baseline, relative orbit, tile.
_PRODUCT = re.compile(r"^(S2[A-D])_MSIL\d[AC]_(\d{8}T\d{6})_")
_DATATAKE_BASELINE = re.compile(r"_N\d\d\.\d\d$")


# Read by default: the six that models use, and the classification.
_MAIN = (
    Band("blue", ("B02", "blue", "B02_10m"), "uint16", 0, scale=QUANTIFICATION),
    Band("green", ("B03", "green", "B03_10m"), "uint16", 0, scale=QUANTIFICATION),
    Band("red", ("B04", "red", "B04_10m"), "uint16", 0, scale=QUANTIFICATION),
    Band("nir", ("B08", "nir", "B08_10m"), "uint16", 0, scale=QUANTIFICATION),
    Band("swir16", ("B11", "swir16", "B11_20m"), "uint16", 0, resolution=20, scale=QUANTIFICATION),
    Band("swir22", ("B12", "swir22", "B12_20m"), "uint16", 0, resolution=20, scale=QUANTIFICATION),
    Band("scl", ("SCL", "scl", "SCL_20m"), "uint8", 0, categorical=True, required=False, resolution=20),
)


def _extra(name: str, assets: tuple[str, ...], resolution: float) -> Band:
    return Band(name, assets, "uint16", 0, required=False, default=False, resolution=resolution, scale=QUANTIFICATION)


def _percent(name: str, assets: tuple[str, ...]) -> Band:
    # Declared nodata is 0, which is also "certainly none": averages that leave it out would make clouds grow.
    return Band(name, assets, "uint8", 0, categorical=True, required=False, default=False, resolution=20)


# Read when asked for. Cirrus is published at the top of the atmosphere only.
_EXTRA = (
    _extra("coastal", ("B01", "coastal", "B01_60m"), 60),
    _extra("rededge1", ("B05", "rededge1", "B05_20m"), 20),
    _extra("rededge2", ("B06", "rededge2", "B06_20m"), 20),
    _extra("rededge3", ("B07", "rededge3", "B07_20m"), 20),
    _extra("nir08", ("B8A", "nir08", "B8A_20m"), 20),
    _extra("nir09", ("B09", "nir09", "B09_60m"), 60),
    _extra("cirrus", ("B10", "cirrus", "B10_60m"), 60),
    _percent("cloud_probability", ("cloud", "CLD", "CLD_20m", "MSK_CLDPRB_20m", "MSK_CLDPRB")),
    _percent("snow_probability", ("snow", "SNW", "SNW_20m", "MSK_SNWPRB_20m", "MSK_SNWPRB")),
)


@dataclass(frozen=True)
class Sentinel2:
    """Sentinel-2 Level-2A (surface) or Level-1C (top of atmosphere) reflectance."""

    name: str = "sentinel-2"
    node: str = "sentinel2"
    collections: tuple[str, ...] = ("sentinel-2-l2a", "sentinel-2-c1-l2a", "sentinel-2-l1c")
    static: bool = False
    bands: tuple[Band, ...] = _MAIN + _EXTRA

    def facts(self, item: pystac.Item) -> SceneFacts:
        """Datatake, tile, level, offset and sun of a scene; see `Sensor.facts`."""
        properties = item.properties
        offset, notes = choose_offset(item)
        view = {"view_zenith": "view:incidence_angle", "view_azimuth": "view:azimuth"}
        angles = {name: properties[key] for name, key in view.items() if properties.get(key) is not None}
        datatake = _datatake(item)
        tile = _tile(item)
        part = _part(str(properties.get("s2:datastrip_id", properties.get("eopf:datastrip_id", ""))))
        sun_azimuth, sun_elevation, sun_notes = sun_of(item, _moment(part))
        return SceneFacts(
            key=f"{datatake}/{tile}" if datatake and tile else item.id,
            rank=(
                _baseline(properties) or 0.0,
                str(properties.get("s2:generation_time", properties.get("created", ""))),
            ),
            part=part,
            overpass=datatake or str(properties.get("sat:relative_orbit", "")),
            level="toa" if "l1c" in (item.collection_id or "").lower() or "MSIL1C" in item.id else "surface",
            offset=offset,
            notes={**notes, **angles, **sun_notes},
            sun_azimuth=sun_azimuth,
            sun_elevation=sun_elevation,
            began=_began(datatake),
        )

    def decode(self, raw: xr.Dataset, offset: xr.DataArray) -> xr.Dataset:
        """DN to reflectance, dimensionless, NaN where DN is nodata.

        `scl` stays uint8 with 0 for no data; `cloud_probability` and `snow_probability` stay uint8 percent, whose 0 is
        "none" and, where reflectance is NaN, "not known". What is declared as a band's scale stands in for the
        specification's 1e-4; it is 1 where a provider stores reflectance itself.
        """
        out: dict[str, xr.DataArray] = {}
        for band in map(str, raw.data_vars):
            dn = raw[band]
            if band in CLOUD_LAYERS:
                out[band] = dn.assign_attrs(_LAYER_ATTRS[band])
                continue
            scaled = dn.astype("float32") * np.float32(dn.attrs.get("scale", QUANTIFICATION)) + offset.astype("float32")
            out[band] = scaled.where(dn != dn.attrs.get("nodata", 0)).assign_attrs(
                units="1", standard_name="toa_or_surface_bidirectional_reflectance", long_name=f"{band} reflectance"
            )
        return xr.Dataset(out)


def choose_offset(item: pystac.Item) -> tuple[float, dict[str, Any]]:
    """Decide the additive reflectance offset of a scene.

    Baseline 04.00 and later store DN with 1000 added; some providers remove it again and say so. The date never
    decides, since old scenes were reprocessed.

    Parameters
    ----------
    item : pystac.Item
        A Sentinel-2 scene.

    Returns
    -------
    offset : float
        Reflectance to add after scaling: -0.1 or 0.
    notes : dict
        ``baseline`` (float or None), ``offset_by_baseline``, ``offset_by_provider`` (float or None).
    """
    baseline = _baseline(item.properties)
    by_baseline = BASELINE_OFFSET if baseline is not None and baseline >= FIRST_OFFSET_BASELINE else 0.0
    by_provider = _provider_offset(item)
    chosen = by_baseline if by_provider is None else by_provider
    return chosen, {"baseline": baseline, "offset_by_baseline": by_baseline, "offset_by_provider": by_provider}


def _provider_offset(item: pystac.Item) -> float | None:
    applied = item.properties.get("earthsearch:boa_offset_applied")
    if applied is True:
        return 0.0
    for key in ("B04", "red", "B04_10m"):
        asset = item.assets.get(key)
        if asset is None:
            continue
        declared = asset.extra_fields.get("raster:offset")
        bands = asset.extra_fields.get("raster:bands") or asset.extra_fields.get("bands") or [{}]
        declared = bands[0].get("offset", bands[0].get("raster:offset")) if declared is None else declared
        return None if declared is None else float(declared)
    return None


def _baseline(properties: Mapping[str, Any]) -> float | None:
    for key in ("s2:processing_baseline", "processing:version"):
        try:
            return float(properties[key])
        except (KeyError, TypeError, ValueError):
            continue
    return None


def _datatake(item: pystac.Item) -> str:
    stated = item.properties.get("s2:datatake_id") or item.properties.get("eopf:datatake_id")
    if stated:
        # The baseline is part of the identifier, and reprocessing must not make another datatake of it.
        return _DATATAKE_BASELINE.sub("", str(stated))
    named = _PRODUCT.match(item.id)
    return "_".join(named.groups()) if named else ""


def _part(datastrip: str) -> str:
    """When a datastrip was sensed: the same, whoever processed it; ground stations that share a datatake differ."""
    found = re.search(r"_S(\d{8}T\d{6})(?:_|$)", datastrip)
    return found.group(1) if found else datastrip


def _began(datatake: str) -> dt.datetime | None:
    """Start of a datatake, which its identifier carries."""
    found = re.search(r"_(\d{8}T\d{6})", datatake)
    return _moment(found.group(1)) if found else None


def _moment(text: str) -> dt.datetime | None:
    """The time (UTC) that ESA's names write without separators; None if it is none."""
    try:
        return dt.datetime.strptime(text, "%Y%m%dT%H%M%S").replace(tzinfo=dt.UTC)
    except ValueError:
        return None


def _tile(item: pystac.Item) -> str:
    tile = item.properties.get("s2:mgrs_tile") or item.properties.get("grid:code") or ""
    found = re.search(r"\d{1,2}[C-X][A-Z]{2}$", str(tile)) or _TILE.search(item.id)
    return found.group(0).strip("_").removeprefix("T") if found else ""
