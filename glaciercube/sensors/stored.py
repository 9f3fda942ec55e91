"""Where an item keeps a sensor's bands, and how their pixels are stored there."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np
import pystac

from glaciercube.errors import BandError
from glaciercube.sensors.base import Band, BandSource, Published, Sensor

__all__ = ["DTYPES", "holds", "resolve_bands", "stated"]

DTYPES: Final = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")


def resolve_bands(
    item: pystac.Item,
    sensor: Sensor,
    extra: Iterable[str] = (),
    published: Mapping[str, tuple[Published, ...]] | None = None,
    common: Published | None = None,
) -> dict[str, BandSource]:
    """Where an item keeps the bands of a sensor, and how they are stored.

    Parameters
    ----------
    item : pystac.Item
        A scene.
    sensor : Sensor
        Whose bands.
    extra : iterable of str
        Names of bands beyond those that are read by default.
    published : mapping or None
        Band name -> how the provider publishes it, in order of preference; the keys that `Band.assets` names are
        looked for after these.
    common : Published or None
        What holds for every band that is not of classes, where neither the item nor ``published`` says it.

    Returns
    -------
    dict
        Band name -> source; optional bands that are missing are left out.

    Raises
    ------
    BandError
        If a required band is missing, or all are, or a "no data" value is one that the stored pixels cannot have.
    """
    wanted, found, common = set(extra), {}, common or Published("")
    for band in sensor.bands:
        if not (band.default or band.name in wanted):
            continue
        choices = (*(published or {}).get(band.name, ()), *(Published(key) for key in band.assets))
        chosen = next((choice for choice in choices if choice.asset in item.assets), None)
        if chosen is not None:
            found[band.name] = _source(item, band, chosen, Published("") if band.categorical else common)
        elif band.required:
            looked = dict.fromkeys(choice.asset for choice in choices)
            raise BandError(
                f"scene {item.id} has no asset for band {band.name!r} (looked for {', '.join(looked)}; "
                f"it has {', '.join(item.assets) or 'none'})",
                f"choose a collection that publishes it, or leave {sensor.name} out",
            )
    if not found:
        raise BandError(
            f"scene {item.id} has no asset for any band of {sensor.name} (it has {', '.join(item.assets) or 'none'})",
            f"choose a collection that publishes them, or leave {sensor.name} out",
        )
    return found


def stated(item: pystac.Item, asset: str, inner: str = "") -> dict[str, Any]:
    """What an item itself says of how an asset's pixels are stored.

    Parameters
    ----------
    item : pystac.Item
        A scene, of STAC 1.0 (``raster:bands``) or 1.1 (``bands``, or fields of the asset).
    asset : str
        Key of the asset.
    inner : str
        Path of the array within the asset.

    Returns
    -------
    dict
        Any of ``nodata``, ``scale``, ``offset``, ``data_type``, ``spatial_resolution``, as they are written.
    """
    fields = item.assets[asset].extra_fields
    bands = fields.get("bands") or []
    band = next((each for each in bands if inner and each.get("name") == inner), bands[0] if len(bands) == 1 else {})
    said: dict[str, Any] = {}
    for source in (fields, (fields.get("raster:bands") or [{}])[0], band):
        given = {"spatial_resolution": source.get("gsd")}
        for name in ("nodata", "scale", "offset", "data_type", "spatial_resolution"):
            given[name] = source.get(f"raster:{name}", source.get(name, given.get(name)))
        said |= {name: value for name, value in given.items() if value is not None}
    return said


def _source(item: pystac.Item, band: Band, chosen: Published, common: Published) -> BandSource:
    said = stated(item, chosen.asset, chosen.inner)
    nodata = float(_first(said.get("nodata"), chosen.nodata, common.nodata, band.nodata))
    dtype = str(_first(chosen.dtype, said.get("data_type"), common.dtype, band.dtype))
    # Classes stay what they are; a type that NumPy does not know (STAC has "other") says nothing.
    dtype = band.dtype if band.categorical or dtype not in DTYPES else dtype
    if math.isnan(nodata) and band.dtype.startswith("float"):
        # Whole numbers cannot say where nothing is; floats hold them.
        dtype = dtype if dtype.startswith("float") else band.dtype
    if not holds(dtype, nodata):
        raise BandError(
            f"scene {item.id} marks missing pixels of band {band.name!r} with {nodata:g}, which {dtype} cannot hold",
            f"give nodata (where the item says none) or dtype for asset {chosen.asset} in a profile, or mend the item",
        )
    return BandSource(
        band=band.name,
        asset=chosen.asset,
        dtype=dtype,
        nodata=None if math.isnan(nodata) else nodata,
        scale=float(_first(said.get("scale"), chosen.scale, common.scale, band.scale)),
        resolution=_resolution(item, band, chosen, said),
        categorical=band.categorical,
        inner=chosen.inner,
    )


def _first(*values: Any) -> Any:
    return next(value for value in values if value is not None)


def holds(dtype: str, value: float) -> bool:
    """Whether pixels of a type can have a value.

    Parameters
    ----------
    dtype : str
        NumPy's name of it.
    value : float
        Such as what marks missing pixels; may be NaN.
    """
    if dtype.startswith("float"):
        return not math.isfinite(value) or abs(value) <= float(np.finfo(dtype).max) * (1 + 1e-6)
    return value.is_integer() and np.iinfo(dtype).min <= value <= np.iinfo(dtype).max


def _resolution(item: pystac.Item, band: Band, chosen: Published, said: Mapping[str, Any]) -> float:
    transform = item.assets[chosen.asset].extra_fields.get("proj:transform") or item.properties.get("proj:transform")
    # A container's transform is that of its finest arrays.
    if not transform or chosen.inner:
        return float(said.get("spatial_resolution", band.resolution))
    step = abs(float(transform[0]))
    # A degree of longitude shrinks with latitude; 111.32 km is its length at the equator.
    latitude = (item.bbox[1] + item.bbox[3]) / 2.0 if item.bbox else 0.0
    return step * 111_320.0 * math.cos(math.radians(latitude)) if step < 0.1 else step
