"""Scenes: the frozen answer of a search, with everything decided that later rooms rely on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pystac

from glaciercube.errors import CatalogError
from glaciercube.sensors import BandSource, Sensor, get_sensor

if TYPE_CHECKING:
    import geopandas as gpd

    from glaciercube.catalog.completeness import Completeness
    from glaciercube.region import Region

__all__ = ["COLUMNS", "LEFT_OUT", "Scenes"]

COLUMNS = (
    "sensor",
    "collection",
    "id",
    "datetime",
    "time",
    "solar_day",
    "group",
    "level",
    "offset",
    "sun_azimuth",
    "sun_elevation",
    "notes",
    "bands",
    "item",
    "geometry",
)

LEFT_OUT = ("sensor", "collection", "id", "reason")

# What decides pixels: two searches that agree in these give the same cube.
# Locations do not: a mirrored catalogue is the same. Nor do notes, which say why; a look at an offset that failed once
# must not redo a store.
_FINGERPRINTED = ("sensor", "collection", "id", "time", "group", "level", "offset", "bands")


def _nothing() -> pd.DataFrame:
    return pd.DataFrame({name: pd.Series(dtype=object) for name in LEFT_OUT})


@dataclass(frozen=True, eq=False)
class Scenes:
    """A frozen snapshot of a search.

    Attributes
    ----------
    table : GeoDataFrame
        A row per STAC item, ordered by sensor, time and id. ``datetime`` is the acquisition (UTC), ``time`` the label
        that all scenes of one observation share, ``solar_day`` the local solar date, ``group`` the observation,
        ``offset`` the additive reflectance offset, ``notes`` (JSON) what decided it, ``bands`` (JSON) where each
        band is kept and how it is stored (`BandSource`), ``item`` the unsigned STAC item (JSON).
    source : str
        The catalogue's path or URL, without credentials.
    signing : str
        How assets are signed when read.
    left_out : DataFrame
        Scenes that were found and are not used: ``sensor``, ``collection``, ``id``, ``reason``.
    interval : str
        What was asked for: ``start/end`` in UTC, ``..`` where it is open; empty if that is not known.
    """

    table: gpd.GeoDataFrame
    source: str
    signing: str = ""
    left_out: pd.DataFrame = field(default_factory=_nothing)
    interval: str = ""

    def __len__(self) -> int:
        return len(self.table)

    @property
    def sensors(self) -> tuple[str, ...]:
        """Names of the sensors that have at least one scene."""
        return tuple(dict.fromkeys(self.table["sensor"]))

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over everything that decides pixels; the same search gives the same fingerprint."""
        digest = hashlib.sha256()
        for text in self.decisive():
            digest.update(text)
        return digest.hexdigest()

    def decisive(self) -> Iterator[bytes]:
        """What decides the pixels of each scene, in the table's order; the fingerprint is over these."""
        columns = [self.table[name] for name in _FINGERPRINTED]
        beside = [self.table[name] for name in ("notes", "sun_azimuth", "sun_elevation")]
        for notes, azimuth, elevation, *row in zip(*beside, *columns, strict=True):
            values = dict(zip(_FINGERPRINTED, map(str, row), strict=True))
            # How a store is reached does not change what is in it.
            bands = {name: {**band, "options": ()} for name, band in json.loads(values["bands"]).items()}
            values["bands"] = json.dumps(bands, sort_keys=True)
            # The sun decides the hillshade; a thousandth of a degree is what two machines may compute differently.
            values["sun"] = f"{azimuth:.2f}/{elevation:.2f}"
            layer = json.loads(notes).get("layer")
            if layer is not None:
                # What its numbers mean is the user's word, and decides.
                values["layer"] = json.dumps(layer["options"], sort_keys=True)
            yield "\x1f".join(values.values()).encode() + b"\x1e"

    def sensor(self, name: str) -> Sensor:
        """A sensor of these scenes; a layer of the user's own is as its scenes define it.

        Raises
        ------
        ConfigError
            If there is no such sensor.
        """
        notes = self.table.loc[self.table["sensor"] == name, "notes"]
        return get_sensor(name, json.loads(notes.iloc[0]) if len(notes) else None)

    def of(self, sensor: str) -> Scenes:
        """The scenes of one sensor."""
        table, lost = (frame[frame["sensor"] == sensor].reset_index(drop=True) for frame in (self.table, self.left_out))
        return replace(self, table=table, left_out=lost)

    def items(self) -> list[pystac.Item]:
        """The STAC items, in the table's order."""
        # As they were published: a migration could warn, and nothing here needs one.
        return [pystac.Item.from_dict(json.loads(t), preserve_dict=False, migrate=False) for t in self.table["item"]]

    def bands(self) -> list[dict[str, BandSource]]:
        """Band name -> source, of each scene, in the table's order."""
        return [
            {name: BandSource(**source) for name, source in json.loads(text).items()} for text in self.table["bands"]
        ]

    def summary(self) -> pd.DataFrame:
        """Scenes and observations per sensor and year: columns sensor, collection, year, scenes, observations."""
        frame = pd.DataFrame(self.table.drop(columns="geometry"))
        frame["year"] = pd.DatetimeIndex(frame["time"]).year
        grouped = frame.groupby(["sensor", "collection", "year"], sort=True)
        return grouped.agg(scenes=("id", "size"), observations=("group", "nunique")).reset_index()

    def completeness(self, region: Region) -> Completeness:
        """What is there and what was to be expected; see `glaciercube.catalog.completeness.completeness`.

        Parameters
        ----------
        region : Region
            Where; coverage is measured on its grid.
        """
        from glaciercube.catalog.completeness import completeness

        return completeness(self, region)

    def save(self, path: str | Path) -> Path:
        """Write the snapshot as GeoParquet.

        Raises
        ------
        CatalogError
            If the file cannot be written.
        """
        path = Path(path)
        table = self.table.copy()
        # GeoParquet keeps them in the file's metadata.
        table.attrs = {
            "source": self.source,
            "signing": self.signing,
            "interval": self.interval,
            "left_out": self.left_out.to_dict("records"),
        }
        try:
            table.to_parquet(path, index=False)
        except OSError as error:
            raise CatalogError(
                f"cannot write the scenes to {path} ({error})", "free space or choose a folder"
            ) from error
        return path

    @classmethod
    def load(cls, path: str | Path) -> Scenes:
        """Read a snapshot back.

        Raises
        ------
        CatalogError
            If the file is not a snapshot that `save` wrote.
        """
        import geopandas as gpd

        try:
            table = gpd.read_parquet(path)
            kept, table.attrs = table.attrs, {}
            left_out = pd.DataFrame(kept["left_out"], columns=list(LEFT_OUT), dtype=object)
            return cls(table[list(COLUMNS)], kept["source"], kept["signing"], left_out, kept["interval"])
        except Exception as error:
            raise CatalogError(f"{path} is not a snapshot of scenes ({error})", "run find again") from error
