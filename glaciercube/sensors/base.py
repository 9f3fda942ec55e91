"""What every sensor must say of its pixels: the protocol, bands, and the facts read from a STAC item."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import pystac
import xarray as xr

from glaciercube.errors import BandError

__all__ = ["Band", "SceneFacts", "Sensor", "find_assets"]


@dataclass(frozen=True)
class Band:
    """A band of a sensor, under its name in the cube.

    Attributes
    ----------
    name : str
        Variable name in the cube, such as ``"red"``.
    assets : tuple of str
        Asset keys under which providers publish it, in order of preference.
    dtype : str
        dtype of the stored pixels.
    nodata : float
        Stored value that means "no data" where the item does not say.
    categorical : bool
        True if values are classes, which must not be averaged.
    required : bool
        False if scenes without it are still usable.
    """

    name: str
    assets: tuple[str, ...]
    dtype: str
    nodata: float
    categorical: bool = False
    required: bool = True


@dataclass(frozen=True)
class SceneFacts:
    """What one STAC item says of itself, in the terms that glaciercube decides by.

    Attributes
    ----------
    key : str
        Scenes with one key show the same ground at the same moment: the same datatake and tile.
    rank : tuple
        Among scenes of one key the greatest wins (processing baseline, then time of processing).
    part : str
        Scenes of one key and rank but different parts complete each other (two ground stations).
    overpass : str
        Scenes of one pass and day form one observation.
    level : str
        ``"surface"`` or ``"toa"`` reflectance; ``""`` for other sensors.
    offset : float
        Added to scaled pixels, in physical units.
    notes : mapping
        What was read to decide, kept as provenance.
    sun_azimuth, sun_elevation : float
        Degrees; NaN where the item does not say.
    began : datetime or None
        Start of the datatake (UTC), which all its granules share; None where it is not known.
    """

    key: str
    rank: tuple[Any, ...] = ()
    part: str = ""
    overpass: str = ""
    level: str = ""
    offset: float = 0.0
    notes: Mapping[str, Any] = field(default_factory=dict)
    sun_azimuth: float = float("nan")
    sun_elevation: float = float("nan")
    began: dt.datetime | None = None


class Sensor(Protocol):
    """What a pixel of one sensor means. Knows nothing of catalogues, models or stores."""

    @property
    def name(self) -> str:
        """Name in configurations, such as ``"sentinel-2"``."""

    @property
    def node(self) -> str:
        """Name of the node in the tree, such as ``"sentinel2"``."""

    @property
    def collections(self) -> tuple[str, ...]:
        """STAC collections it is published under; the first is the default."""

    @property
    def bands(self) -> tuple[Band, ...]:
        """Bands to be read."""

    @property
    def static(self) -> bool:
        """True if there is one surface for all dates."""

    def facts(self, item: pystac.Item) -> SceneFacts:
        """Read from an item what decides its use.

        Raises
        ------
        BandError
            If the item is of a product that cannot be used.
        """

    def decode(self, raw: xr.Dataset, offset: xr.DataArray) -> xr.Dataset:
        """Turn stored pixels into physical units, lazily.

        Parameters
        ----------
        raw : Dataset (time, y, x)
            Stored pixels by band name, each with ``nodata`` in its attributes.
        offset : DataArray (time)
            Additive offset of each layer, in physical units.

        Returns
        -------
        Dataset
            float32 variables with ``units``, NaN where there is no data.
        """


def find_assets(item: pystac.Item, sensor: Sensor) -> dict[str, str]:
    """Which asset of an item holds which band.

    Returns
    -------
    dict
        Band name -> asset key; optional bands that are missing are left out.

    Raises
    ------
    BandError
        If a required band is missing.
    """
    found: dict[str, str] = {}
    for band in sensor.bands:
        key = next((key for key in band.assets if key in item.assets), None)
        if key is not None:
            found[band.name] = key
        elif band.required:
            raise BandError(
                f"scene {item.id} has no asset for band {band.name!r} (looked for {', '.join(band.assets)}; "
                f"it has {', '.join(item.assets) or 'none'})",
                f"choose a collection that publishes it, or leave {sensor.name} out",
            )
    return found


def item_time(item: pystac.Item) -> dt.datetime:
    """Acquisition time of an item, in UTC; a time without a zone is UTC, as STAC asks.

    Raises
    ------
    BandError
        If the item carries no time at all.
    """
    when = item.datetime or item.common_metadata.start_datetime
    if when is None:
        raise BandError(f"scene {item.id} carries no acquisition time", "leave it out, or mend its datetime")
    return when.replace(tzinfo=dt.UTC) if when.tzinfo is None else when.astimezone(dt.UTC)
