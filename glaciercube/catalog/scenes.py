"""Scenes: the frozen answer of a search, with everything decided that later rooms rely on."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

import pandas as pd
import pystac

from glaciercube.errors import CatalogError
from glaciercube.sensors import BandSource

if TYPE_CHECKING:
    import geopandas as gpd

__all__ = ["COLUMNS", "Scenes"]

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

# What decides pixels: two searches that agree in these give the same cube.
# Locations do not: a mirrored catalogue is the same.
_FINGERPRINTED = ("sensor", "collection", "id", "time", "group", "level", "offset", "notes", "bands")


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
    """

    table: gpd.GeoDataFrame
    source: str
    signing: str = ""

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
        for _, row in self.table.iterrows():
            digest.update("\x1f".join(str(row[name]) for name in _FINGERPRINTED).encode() + b"\x1e")
        return digest.hexdigest()

    def of(self, sensor: str) -> Scenes:
        """The scenes of one sensor."""
        return Scenes(self.table[self.table["sensor"] == sensor].reset_index(drop=True), self.source, self.signing)

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

    def save(self, path: str | Path) -> Path:
        """Write the snapshot as GeoParquet.

        Raises
        ------
        CatalogError
            If the file cannot be written.
        """
        path = Path(path)
        table = self.table.copy()
        table.attrs = {}
        table["source"], table["signing"] = self.source, self.signing
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
            source, signing = str(table["source"].iloc[0]), str(table["signing"].iloc[0])
            return cls(table[list(COLUMNS)], source, signing)
        except Exception as error:
            raise CatalogError(f"{path} is not a snapshot of scenes ({error})", "run find again") from error


def without_secrets(href: str) -> str:
    """A URL without its query, fragment and user; a path unchanged."""
    parts = urlsplit(href)
    if parts.scheme not in ("http", "https", "s3"):
        return href
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
