"""What a pixel means, sensor by sensor: bands, units, offsets, masks, nodata."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from glaciercube.errors import ConfigError
from glaciercube.sensors.base import Band, BandSource, Published, SceneFacts, Sensor, item_time
from glaciercube.sensors.copdem import CopernicusDEM
from glaciercube.sensors.layers import Layer, LayerOptions
from glaciercube.sensors.sentinel1 import Sentinel1, decibel
from glaciercube.sensors.sentinel2 import OPTICAL_BANDS, SCL_CLOUD, SCL_SHADOW, Sentinel2
from glaciercube.sensors.stored import resolve_bands, stated

__all__ = [
    "OPTICAL_BANDS",
    "SCL_CLOUD",
    "SCL_SHADOW",
    "SENSORS",
    "Band",
    "BandSource",
    "CopernicusDEM",
    "Layer",
    "LayerOptions",
    "Published",
    "SceneFacts",
    "Sensor",
    "Sentinel1",
    "Sentinel2",
    "decibel",
    "get_sensor",
    "item_time",
    "resolve_bands",
    "stated",
]

SENSORS: dict[str, Sensor] = {sensor.name: sensor for sensor in (Sentinel2(), Sentinel1(), CopernicusDEM())}


def get_sensor(name: str, notes: Mapping[str, Any] | None = None) -> Sensor:
    """Look a sensor up by its name in configurations.

    Parameters
    ----------
    name : str
        Its name.
    notes : mapping or None
        Of one of its scenes: a layer of the user's own is defined there.

    Raises
    ------
    ConfigError
        If there is no such sensor.
    """
    if notes and "layer" in notes:
        return Layer.from_definition(notes["layer"])
    try:
        return SENSORS[name]
    except KeyError:
        raise ConfigError(f"unknown sensor {name!r}", f"choose among {', '.join(SENSORS)}") from None
