"""Layers of the user's own: any STAC collection of rasters, with a declared unit."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, TypeAlias, get_args

import numpy as np
import pystac
import xarray as xr

from glaciercube.errors import BandError, ConfigError, require
from glaciercube.sensors.base import Band, SceneFacts, item_time
from glaciercube.sensors.copdem import CopernicusDEM
from glaciercube.sensors.sentinel1 import Sentinel1
from glaciercube.sensors.sentinel2 import Sentinel2
from glaciercube.sensors.stored import stated

__all__ = ["LAYERS", "Layer", "LayerOptions", "Method"]

#: Node of the tree under which layers are: ``/layers/<name>``.
LAYERS: Final = "layers"

Method: TypeAlias = Literal["nearest", "bilinear", "cubic", "average", "mode"]

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_BUILT_IN = (Sentinel2(), Sentinel1(), CopernicusDEM())
# What the cube holds besides sensors' bands.
_DERIVED: Final = (
    *("aspect_cos", "aspect_sin", "curvature", "dem_flags", "hillshade", "optical_flags", "slope"),
    "topographic_position",
    *(
        "bnds",
        "coverage",
        "glacier_probability",
        "layers",
        "platform",
        "provenance",
        "spatial_ref",
        "time",
        "time_bnds",
    ),
    *("x", "y"),
)
_RESERVED: Final = frozenset(
    [
        *_DERIVED,
        *(name for sensor in _BUILT_IN for name in (sensor.name, sensor.node)),
        *(band.name for sensor in _BUILT_IN for band in sensor.bands),
    ]
)
# Layers that models know by name, and how their unit may be written.
_PER_YEAR: Final = ("m a-1", "m/a", "m yr-1", "m/yr", "m year-1", "m/year")
_KNOWN_UNITS: Final[Mapping[str, tuple[str, ...]]] = {
    "coherence": ("1",),
    "elevation_change": _PER_YEAR,
    "velocity": _PER_YEAR,
}
# Endings of the variables and coordinates that go with others.
_ENDINGS: Final = ("_age", "_db", "_orbit", "_azimuth", "_elevation", "_zenith")


@dataclass(frozen=True)
class LayerOptions:
    """A layer of the user's own: where it is published, and what its pixels mean.

    Attributes
    ----------
    collection : str
        STAC collection.
    asset : str
        Key of the asset, in each item; the first band of its file is read.
    unit : str
        Unit of the decoded values, as UDUNITS writes it: ``"1"`` for a share, ``"m a-1"`` for a velocity, ``"K"``.
    long_name : str
        For people.
    valid_range : (float, float) or None
        In ``unit``, both ends included; values beyond it are missing.
    scale, offset : float or None
        Stored pixels times scale, plus offset, are in ``unit``; as the items say where None, else 1 and 0.
    nodata : float or None
        Stored value that means "no data", where items and files do not say.
    categorical : bool
        True if values are classes, which must not be averaged.
    static : bool
        True if all items make one surface for all dates, such as a change of elevation over a decade.
    resampling : str or None
        GDAL's name of the method; chosen by pixel sizes where None (mean over the area or bilinear; mode or nearest of
        classes).
    catalog : str or None
        Where the collection is, if not in the catalogue of the other sensors.
    """

    collection: str = ""
    asset: str = ""
    unit: str = ""
    long_name: str = ""
    valid_range: tuple[float, float] | None = None
    scale: float | None = None
    offset: float | None = None
    nodata: float | None = None
    categorical: bool = False
    static: bool = False
    resampling: Method | None = None
    catalog: str | None = None

    def __post_init__(self) -> None:
        require(
            bool(self.collection), "a layer names no collection", "say which STAC collection it is (collection: ...)"
        )
        require(bool(self.asset), "a layer names no asset", "say under which key its items keep the file (asset: ...)")
        require(
            bool(self.unit.strip()),
            "a layer has no unit",
            'declare the unit of its values (unit: "1" for shares and classes, unit: m, unit: m a-1, unit: K)',
        )
        if self.valid_range is not None:
            low, high = self.valid_range
            require(low <= high, f"valid_range {low} to {high} holds nothing", "write the lower end first")
            # JSON hands tuples back as lists.
            object.__setattr__(self, "valid_range", (float(low), float(high)))
        averages = self.resampling not in (None, "nearest", "mode")
        require(not (self.categorical and averages), f"{self.resampling} mixes classes", "choose nearest or mode")
        known = self.resampling is None or self.resampling in get_args(Method)
        require(known, f"there is no resampling {self.resampling!r}", f"choose among {', '.join(get_args(Method))}")


@dataclass(frozen=True)
class Layer:
    """A layer as a sensor of one band, under its own name.

    Attributes
    ----------
    name : str
        Variable name in the cube.
    options : LayerOptions
        What it is.
    signing : str or None
        How its files are signed, if it has a catalogue of its own; as those of the other sensors where None.

    Raises
    ------
    ConfigError
        If the name is not one that a variable can have, or is taken; or if models know a layer of that name in another
        unit.
    """

    name: str
    options: LayerOptions
    signing: str | None = None

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ConfigError(
                f"a layer cannot be named {self.name!r}", "use small letters, digits and _, and begin with a letter"
            )
        if self.name in _RESERVED or self.name.endswith(_ENDINGS):
            raise ConfigError(f"the name {self.name!r} is taken in the cube", "give the layer another name")
        units = _KNOWN_UNITS.get(self.name, (self.options.unit,))
        if self.options.unit.strip() not in units:
            raise ConfigError(
                f"models take {self.name} in {units[0]}, and the layer is in {self.options.unit}",
                f"give a scale that brings it there (365.25 of m d-1) and unit: {units[0]}, or another name",
            )

    @property
    def node(self) -> str:
        """Path of its node in the tree."""
        return f"{LAYERS}/{self.name}"

    @property
    def collections(self) -> tuple[str, ...]:
        """The collection."""
        return (self.options.collection,)

    @property
    def static(self) -> bool:
        """True if there is one surface for all dates."""
        return self.options.static

    @property
    def bands(self) -> tuple[Band, ...]:
        """The one band. Read as float32 where neither item nor options say what is missing: NaN then is."""
        nodata = float("nan") if self.options.nodata is None else self.options.nodata
        return (Band(self.name, (self.options.asset,), "float32", nodata, categorical=self.options.categorical),)

    def facts(self, item: pystac.Item) -> SceneFacts:
        """The layer's definition, and the time: the middle, where an item says start and end; see `Sensor.facts`."""
        said = stated(item, self.options.asset) if self.options.asset in item.assets else {}
        ours, theirs = self.options.nodata, said.get("nodata")
        if ours is not None and theirs is not None and not np.array_equal(ours, float(theirs), equal_nan=True):
            raise BandError(
                f"scene {item.id} says that {theirs} means no data, and the layer {self.name} says {ours}",
                "leave nodata out of the layer's options, or mend the item",
            )
        offset = said.get("offset", 0.0) if self.options.offset is None else self.options.offset
        began = _middle(item)
        # Tiles of one moment are one observation.
        return SceneFacts(
            key=item.id,
            overpass=began.isoformat(),
            offset=float(offset),
            notes={"layer": self.definition()},
            began=began,
        )

    def decode(self, raw: xr.Dataset, offset: xr.DataArray) -> xr.Dataset:
        """Values in the declared unit, float32; NaN where there is no data or where they are beyond the valid range."""
        stored = raw[self.name]
        values = stored.astype("float32")
        nodata = stored.attrs.get("nodata")
        if nodata is not None and nodata == nodata:  # noqa: PLR0124 - a NaN differs from itself
            values = values.where(stored != nodata)
        if not self.options.categorical:
            scale = stored.attrs.get("scale", 1.0) if self.options.scale is None else self.options.scale
            values = values * np.float32(scale) + offset.astype("float32")
        if self.options.valid_range is not None:
            low, high = self.options.valid_range
            values = values.where((values >= np.float32(low)) & (values <= np.float32(high)))
        attrs = {"units": self.options.unit, "long_name": self.options.long_name or self.name.replace("_", " ")}
        if self.options.categorical:
            attrs["kind"] = "classes"
        return xr.Dataset({self.name: values.assign_attrs(attrs)})

    def definition(self) -> dict[str, Any]:
        """Plain values that `from_definition` makes the layer of again; a catalogue's address is not among them."""
        options = {name: value for name, value in asdict(self.options).items() if name != "catalog"}
        return {"name": self.name, "signing": self.signing, "options": options}

    @classmethod
    def from_definition(cls, definition: Mapping[str, Any]) -> Layer:
        """The layer that `definition` described."""
        return cls(definition["name"], LayerOptions(**definition["options"]), definition["signing"])


def _middle(item: pystac.Item) -> dt.datetime:
    start, end = item.common_metadata.start_datetime, item.common_metadata.end_datetime
    if start is None or end is None:
        return item_time(item)
    start, end = (when.replace(tzinfo=dt.UTC) if when.tzinfo is None else when for when in (start, end))
    return (start + (end - start) / 2).astimezone(dt.UTC)
