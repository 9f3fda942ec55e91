"""Reading STAC items from an API, a static catalogue on disk or on the web."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pystac
import shapely
import shapely.geometry

from glaciercube.catalog.profiles import PROFILES, Profile
from glaciercube.catalog.scenes import without_secrets
from glaciercube.errors import CatalogError
from glaciercube.region import Bounds
from glaciercube.sensors import item_time

__all__ = ["Interval", "Source", "open_source", "split_bounds"]

Interval = tuple[dt.datetime, dt.datetime]


@dataclass(frozen=True)
class Source:
    """A catalogue that items can be asked of.

    Attributes
    ----------
    location : str
        Path or URL.
    profile : Profile or None
        Set where the provider is known by name or URL.
    """

    location: str
    profile: Profile | None = None

    def __str__(self) -> str:
        return without_secrets(self.location)

    @property
    def is_api(self) -> bool:
        """True if it answers searches; False if it is a tree of files."""
        return self.location.startswith(("http://", "https://")) and not self.location.endswith(".json")

    @property
    def signing(self) -> str:
        """How its assets are signed."""
        return self.profile.signing if self.profile else ""

    def collections(self) -> list[str]:
        """Identifiers of the collections it offers.

        Raises
        ------
        CatalogError
            If it cannot be read.
        """
        try:
            if self.is_api:
                import pystac_client

                return sorted(c.id for c in pystac_client.Client.open(self.location).get_collections())
            return sorted(c.id for c in self._root().get_all_collections())
        except CatalogError:
            raise
        except Exception as error:
            raise self._unreadable(error) from error

    def items(self, collection: str, bounds: Bounds, interval: Interval | None) -> list[pystac.Item]:
        """Items of a collection that meet a box and an interval, by id.

        Parameters
        ----------
        collection : str
            STAC collection.
        bounds : (west, south, east, north)
            Degrees; ``west > east`` crosses the antimeridian.
        interval : (datetime, datetime) or None
            UTC, both ends included; None for any time.

        Raises
        ------
        CatalogError
            If the catalogue cannot be read.
        """
        boxes = split_bounds(bounds)
        try:
            found = self._search(collection, boxes, interval) if self.is_api else self._walk(collection)
            items = {item.id: item for item in found if _meets(item, boxes, interval)}
        except CatalogError:
            raise
        except Exception as error:
            raise self._unreadable(error) from error
        for item in items.values():
            item.make_asset_hrefs_absolute()
        return [items[key] for key in sorted(items)]

    def _root(self) -> pystac.Catalog:
        if not self.location.startswith("http") and not Path(self.location).is_file():
            raise CatalogError(f"there is no catalogue at {self.location}", "give the path of its catalog.json")
        return pystac.Catalog.from_file(self.location)

    def _walk(self, collection: str) -> Iterator[pystac.Item]:
        for child in self._root().get_all_collections():
            if child.id == collection:
                yield from child.get_items(recursive=True)

    def _search(self, collection: str, boxes: Sequence[Bounds], interval: Interval | None) -> Iterable[pystac.Item]:
        import pystac_client

        client = pystac_client.Client.open(self.location)
        for box in boxes:
            yield from client.search(collections=[collection], bbox=box, datetime=interval, limit=200).items()

    def _unreadable(self, error: Exception) -> CatalogError:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return CatalogError(
            f"the catalogue {self} cannot be read ({_hushed(reason, self.location)})",
            "check the path or URL, the network, and that it is STAC",
        )


def _hushed(reason: str, location: str) -> str:
    """A reason without what a URL might give away: clients quote its path and query on their own."""
    parts = urlsplit(location)
    secrets = [parts.query, parts.username or "", parts.password or ""]
    for secret in filter(None, secrets):
        reason = reason.replace(secret, "...")
    return reason


def open_source(catalog: str | Path) -> Source:
    """Find out what a configuration's ``catalog`` means.

    Parameters
    ----------
    catalog : str or Path
        A provider's name, the URL of a STAC API, or the path or URL of a static ``catalog.json``.

    Raises
    ------
    CatalogError
        If it is none of these.
    """
    location = str(catalog)
    if location in PROFILES:
        return Source(PROFILES[location].url, PROFILES[location])
    if location.startswith(("http://", "https://")):
        known = next((p for p in PROFILES.values() if location.rstrip("/") == p.url), None)
        return Source(location, known)
    path = Path(location)
    if path.is_dir():
        path = path / "catalog.json"
    if not path.is_file():
        raise CatalogError(
            f"there is no catalogue at {location}",
            f"give the path of a catalog.json, the URL of a STAC API, or one of {', '.join(PROFILES)}",
        )
    return Source(str(path.resolve()))


def split_bounds(bounds: Bounds) -> list[Bounds]:
    """Cut geographic bounds that cross the antimeridian into two boxes."""
    west, south, east, north = bounds
    if west <= east:
        return [bounds]
    return [(west, south, 180.0, north), (-180.0, south, east, north)]


def _meets(item: pystac.Item, boxes: Sequence[Bounds], interval: Interval | None) -> bool:
    if interval is not None and not interval[0] <= item_time(item) <= interval[1]:
        return False
    footprint = shapely.geometry.shape(item.geometry) if item.geometry else shapely.box(*(item.bbox or (0, 0, 0, 0)))
    return any(footprint.intersects(shapely.box(*box)) for box in boxes)
