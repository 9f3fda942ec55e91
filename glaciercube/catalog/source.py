"""Reading STAC items from an API, a static catalogue on disk or on the web."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlsplit

import pystac

from glaciercube.catalog.client import Access, CatalogIO, timeouts
from glaciercube.catalog.footprint import footprint
from glaciercube.catalog.interval import Interval
from glaciercube.catalog.profile_file import load_profile
from glaciercube.catalog.profiles import PROFILES, Profile
from glaciercube.catalog.unsigned import without_secrets
from glaciercube.errors import BandError, CatalogError, GlaciercubeError
from glaciercube.region import Bounds, footprint_meets, split_bounds
from glaciercube.sensors import item_time

if TYPE_CHECKING:
    from pystac_client import Client

__all__ = ["Source", "open_source"]

T = TypeVar("T")

# Items of a page. Of Sentinel-2's, some servers cannot send more than about 260 at once (6 MB) and answer 500 or 502;
# the search is then begun again with smaller pages.
PAGES: Final = (100, 25, 5)
_TOO_LARGE: Final = (413, 500, 502, 504)

_OVERHANG: Final = 30.0  # degrees; a Sentinel-2 tile at 84 degrees of latitude is 10 wide, a Sentinel-1 scene 23
_SLIVER: Final = 0.001  # degrees


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
        """True if it may answer searches; False if it is a tree of files."""
        return self._on_web and not urlsplit(self.location).path.endswith(".json")

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
        access = self._access()

        def ask() -> list[str]:
            client = self._client(access)
            offered = client.get_collections() if client else self._root(access).get_all_collections()
            return sorted({collection.id for collection in offered})

        return _in_words(access, ask)

    def items(
        self,
        collection: str,
        boxes: Bounds | Sequence[Bounds],
        interval: Interval | None = None,
        broken: list[tuple[str, str]] | None = None,
    ) -> list[pystac.Item]:
        """Items of a collection that meet any of some boxes, and an interval, by id.

        Parameters
        ----------
        collection : str
            STAC collection.
        boxes : (west, south, east, north) or sequence of them
            Degrees; ``west > east`` crosses the antimeridian.
        interval : (datetime, datetime) or None
            UTC, both ends included; an end that is None is open. None for any time.
        broken : list or None
            Gets the name of each item that is not STAC, and the reason; without it, the first of them raises.

        Raises
        ------
        CatalogError
            If the catalogue cannot be read, or does not give all that it has.
        """
        given: list[Any] = [boxes] if isinstance(boxes[0], (int, float)) else list(boxes)
        parts = [part for box in given for part in split_bounds(box)]
        access = self._access()

        def ask() -> list[pystac.Item]:
            client = self._client(access)
            found = (
                self._search(client, collection, parts, interval, broken)
                if client
                else self._walk(access, collection, broken)
            )
            items = {item.id: item for item in found if _meets(item, parts, interval)}
            for item in items.values():
                item.make_asset_hrefs_absolute()
            return [items[key] for key in sorted(items)]

        return _in_words(access, ask)

    @property
    def _on_web(self) -> bool:
        return self.location.startswith(("http://", "https://"))

    def _access(self) -> Access:
        if not self._on_web:
            return Access(self.location)
        # A token is for the user's own API: the known providers want none, and shall not see another's.
        return Access.of(self.location, token=self.profile not in PROFILES.values())

    def _client(self, access: Access) -> Client | None:
        """A client of the API; None if there is none, but files."""
        if not self.is_api:
            return None
        import warnings

        import pystac_client
        from pystac_client.warnings import PystacClientWarning

        with warnings.catch_warnings():
            # Whether it can be searched is asked below. The time-out is given twice: opening would undo the first.
            warnings.simplefilter("ignore", PystacClientWarning)
            client = pystac_client.Client.open(access.url, stac_io=access.api(), timeout=timeouts())
        # Else it would be fetched again by its link, which behind some proxies leads nowhere.
        client.set_root(client)
        return client if client.get_search_link() else None

    def _root(self, access: Access) -> pystac.Catalog:
        if not self._on_web and not Path(self.location).is_file():
            raise CatalogError(f"there is no catalogue at {self.location}", "give the path of its catalog.json")
        return pystac.Catalog.from_file(access.url, stac_io=CatalogIO(access))

    def _walk(self, access: Access, collection: str, broken: list[tuple[str, str]] | None) -> Iterator[pystac.Item]:
        files = CatalogIO(access)
        for child in self._root(access).get_all_collections():
            if child.id != collection:
                continue
            for folder in _folders(child):
                for link in folder.get_item_links():
                    href = link.get_absolute_href() or ""
                    # What cannot be fetched is no reason to go on without it; what is not STAC may be.
                    content = files.read_json(href)
                    with _set_apart(Path(href).stem, broken):
                        yield _item(content, href)

    def _search(
        self,
        client: Client,
        collection: str,
        boxes: Sequence[Bounds],
        interval: Interval | None,
        broken: list[tuple[str, str]] | None,
    ) -> Iterator[pystac.Item]:
        for box in _with_overhang(boxes):
            for feature in self._features(client, collection, box, interval):
                with _set_apart(str(feature.get("id")), broken):
                    yield _item(feature)

    def _features(
        self, client: Client, collection: str, box: Bounds, interval: Interval | None
    ) -> list[dict[str, Any]]:
        from pystac_client.exceptions import APIError

        asked = {"collections": [collection], "bbox": box, "datetime": _whole_seconds(interval)}
        for limit in PAGES[:-1]:
            try:
                return self._pages(client, limit, **asked)
            except APIError as error:
                if getattr(error, "status_code", None) not in _TOO_LARGE:
                    raise
        return self._pages(client, PAGES[-1], **asked)

    def _pages(self, client: Client, limit: int, **asked: Any) -> list[dict[str, Any]]:
        """All pages of a search, none of them missing."""
        features: dict[str, dict[str, Any]] = {}
        # GET, which every API must answer; some refuse POST, and few proxies repeat it.
        for page in client.search(method="GET", limit=limit, **asked).pages_as_dicts():
            received = page["features"]
            known = len(features)
            features.update((feature["id"], feature) for feature in received)
            if received and len(features) == known:
                raise self._partial("a page comes twice")
            matched = page.get("numberMatched", page.get("context", {}).get("matched"))
            ends = not any(link.get("rel") == "next" for link in page.get("links", []))
            # Counts may be estimates; but a full page that none follows, with more to come, was cut off.
            if ends and len(received) >= limit and matched is not None and matched > len(features):
                raise self._partial(f"it has {matched} items, and gives {len(features)}")
        return list(features.values())

    def _partial(self, reason: str) -> CatalogError:
        return CatalogError(
            f"the catalogue {self} does not give all that it found ({reason})",
            "its paging is broken: tell its operator, or ask for a shorter interval",
        )


def _in_words(access: Access, ask: Callable[[], T]) -> T:
    """Turn whatever clients raise into a `CatalogError`."""
    try:
        return ask()
    except GlaciercubeError:
        raise
    except Exception as error:  # noqa: BLE001 - raised again below
        failure = access.failure(error)
    # Out here, so that it has no context: what lies behind may quote a token.
    raise failure


def _item(content: dict[str, Any], href: str | None = None) -> pystac.Item:
    # As it was published, from whichever source: a migration rewrites some fields, and warns of others.
    return pystac.Item.from_dict(content, href=href, preserve_dict=False, migrate=False)


@contextmanager
def _set_apart(name: str, broken: list[tuple[str, str]] | None) -> Iterator[None]:
    """Note an item that is not STAC, and go on."""
    try:
        yield
    except json.JSONDecodeError:
        # Half a file: perhaps it did not come whole.
        raise
    except (pystac.STACError, pystac.STACTypeError, KeyError, TypeError, ValueError) as error:
        if broken is None:
            raise
        broken.append((name, f"it is not a STAC item ({(str(error).splitlines() or [type(error).__name__])[0]})"))


def _folders(folder: pystac.Catalog) -> Iterator[pystac.Catalog]:
    """A catalogue and all within it."""
    yield folder
    for child in folder.get_children():
        yield from _folders(child)


def open_source(catalog: str | Path) -> Source:
    """Find out what a configuration's ``catalog`` means.

    Parameters
    ----------
    catalog : str or Path
        A provider's name, the URL of a STAC API, the path or URL of a static ``catalog.json``, or the path of a
        profile (``.yaml``).

    Raises
    ------
    CatalogError
        If it is none of these.
    ConfigError
        If a profile cannot be understood.
    """
    location = str(catalog)
    if location.endswith((".yaml", ".yml")):
        profile = load_profile(location)
        return Source(open_source(profile.url).location, profile)
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
            "give the path of a catalog.json or of a profile (.yaml), the URL of a STAC API, or one of "
            + ", ".join(PROFILES),
        )
    return Source(str(path.resolve()))


def _with_overhang(boxes: Sequence[Bounds]) -> list[Bounds]:
    """The boxes, and slivers across the antimeridian from them.

    Some providers draw a scene there on beyond 180 degrees; servers then find it on the side only where it begins.
    """
    asked = list(boxes)
    for west, south, east, north in boxes:
        if west < -180.0 + _OVERHANG and not any(box[2] >= 180.0 for box in boxes):
            asked.append((180.0 - _SLIVER, south, 180.0, north))
        if east > 180.0 - _OVERHANG and not any(box[0] <= -180.0 for box in boxes):
            asked.append((-180.0, south, _SLIVER - 180.0, north))
    return asked


def _whole_seconds(interval: Interval | None) -> Interval | None:
    """The interval, its end moved up: clients cut fractions of a second off, and the last items with them."""
    if interval is None or interval == (None, None):
        return None
    first, last = interval
    return first, last and last.replace(microsecond=0) + dt.timedelta(seconds=1)


def _meets(item: pystac.Item, boxes: Sequence[Bounds], interval: Interval | None) -> bool:
    first, last = interval or (None, None)
    try:
        when = item_time(item) if interval else None
        if when is not None and ((first is not None and when < first) or (last is not None and when > last)):
            return False
        return footprint_meets(footprint(item), boxes)
    except BandError:
        # Without a time or a place it cannot be ruled out here; `find` says why it is of no use.
        return True
