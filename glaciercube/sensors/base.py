"""What every sensor must say of its pixels: the protocol, bands, and the facts read from a STAC item."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import pystac
import xarray as xr

from glaciercube.errors import BandError

__all__ = ["Band", "BandSource", "Published", "SceneFacts", "Sensor", "item_time"]


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
    default : bool
        False if it is read only when it is asked for.
    resolution : float
        Pixel size in metres, where an item does not say.
    scale : float
        Stored pixels times this are physical, where an item does not say.
    """

    name: str
    assets: tuple[str, ...]
    dtype: str
    nodata: float
    categorical: bool = False
    required: bool = True
    default: bool = True
    resolution: float = 10.0
    scale: float = 1.0


@dataclass(frozen=True)
class Published:
    """How a provider publishes a band. What is None is as the item says, or else as the sensor's `Band` does.

    Attributes
    ----------
    asset : str
        Key of the asset.
    inner : str
        Path of the band's array within the asset, where that is a container such as a Zarr group.
    dtype : str or None
        dtype of the stored pixels.
    nodata : float or None
        Stored value that means "no data", where the item does not say; may be NaN.
    scale : float or None
        Stored pixels times this are physical, where the item does not say.
    offset : float or None
        Added to scaled pixels, in physical units, whatever else is known of the scene.
    """

    asset: str
    inner: str = ""
    dtype: str | None = None
    nodata: float | None = None
    scale: float | None = None
    offset: float | None = None


@dataclass(frozen=True)
class BandSource:
    """Where one scene keeps one band, and how it is stored there; frozen in `Scenes`.

    Attributes
    ----------
    band : str
        Variable name in the cube.
    asset : str
        Key of the item's asset.
    dtype : str
        dtype of the stored pixels.
    nodata : float or None
        Stored value that means "no data"; NaN is written as None.
    scale : float
        Stored pixels times this are physical, before any offset.
    resolution : float
        Pixel size in metres.
    categorical : bool
        True if values are classes.
    inner : str
        Path of the band's array within the asset, where that is a container such as a Zarr group: it goes on from the
        asset's href. Empty where the href names the file or array itself.
    options : tuple of (str, str)
        GDAL's configuration options that reading this file needs, such as ``("AWS_REQUEST_PAYER", "requester")``;
        never a secret.
    """

    band: str
    asset: str
    dtype: str
    nodata: float | None
    scale: float = 1.0
    resolution: float = 10.0
    categorical: bool = False
    inner: str = ""
    options: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        # JSON hands tuples back as lists.
        object.__setattr__(self, "options", tuple((str(key), str(value)) for key, value in self.options))

    @property
    def stored_as(self) -> tuple[str, str, float | None, float]:
        """What decides how stored numbers are read; scenes that differ in it are read apart."""
        return (self.band, self.dtype, self.nodata, self.scale)

    def href(self, asset: str) -> str:
        """Where the pixels are, given the asset's href: a file, or an array of a Zarr store."""
        return f"{asset.rstrip('/')}/{self.inner}" if self.inner else asset

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


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
        Degrees; NaN where they do not matter or cannot be known.
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
