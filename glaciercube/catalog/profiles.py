"""Profiles of STAC providers: where they answer, what they call bands, and how their pixels are to be read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Final
from urllib.parse import quote, urlsplit

from glaciercube.catalog.hush import hide
from glaciercube.errors import CatalogError
from glaciercube.sensors import Published

__all__ = ["OFFSET_POLICIES", "PROFILES", "CollectionProfile", "Profile", "signer"]

# "" leaves it to the sensor, which weighs all that an item says.
OFFSET_POLICIES: Final = ("", "baseline", "removed-if-flag", "declared", "none")
_QUERY: Final = "query:"


@dataclass(frozen=True)
class CollectionProfile:
    """How a provider publishes a sensor in one collection.

    Attributes
    ----------
    sensor : str
        Name of the sensor.
    bands : mapping
        Band name -> how it is published, in order of preference. For other bands the sensor's own list of asset keys
        is gone through.
    offset : str
        What the additive offset of a scene follows: ``"baseline"`` (0.1 was added to reflectance since processing
        baseline 04.00), ``"removed-if-flag"`` (the same, unless ``earthsearch:boa_offset_applied`` says that it was
        taken off again), ``"declared"`` (what the item gives for its assets, else the baseline), ``"none"``, or ``""``
        (the sensor decides by all of these).
    level : str
        ``"surface"`` or ``"toa"`` where names do not tell.
    distrust : tuple of str
        Projection fields that are wrong in this collection; they are taken out of the frozen items.
    hrefs : mapping
        Beginning of an href -> what to put in its place.
    alternate : str
        Name of the alternate asset (``alternate`` extension) to read instead; the asset itself where it has none.
    dtype, nodata, scale : str, float, float or None
        Of every band that is not of classes, where neither the item nor ``bands`` says it.
    """

    sensor: str
    bands: Mapping[str, tuple[Published, ...]] = field(default_factory=dict)
    offset: str = ""
    level: str = ""
    distrust: tuple[str, ...] = ()
    hrefs: Mapping[str, str] = field(default_factory=dict)
    alternate: str = ""
    dtype: str | None = None
    nodata: float | None = None
    scale: float | None = None

    @property
    def common(self) -> Published:
        """What holds for all bands, under no asset's name."""
        return Published("", dtype=self.dtype, nodata=self.nodata, scale=self.scale)

    def only_places(self) -> CollectionProfile:
        """The same for another sensor: where files are, and nothing of what this sensor's pixels mean."""
        return CollectionProfile(self.sensor, distrust=self.distrust, hrefs=self.hrefs, alternate=self.alternate)


@dataclass(frozen=True)
class Profile:
    """A STAC provider.

    Attributes
    ----------
    name : str
        Name in configurations.
    url : str
        Root of its STAC API, or the path or URL of its ``catalog.json``.
    signing : str
        How assets are signed when they are read, see `signer`; ``""`` if they are not.
    credentials : str
        What the user must have, in words.
    collections : mapping
        Collection -> how it is published. The first of a sensor is its default.
    options : mapping
        Beginning of an href -> GDAL's configuration options that reading there needs; never a secret.
    """

    name: str
    url: str
    signing: str = ""
    credentials: str = ""
    collections: Mapping[str, CollectionProfile] = field(default_factory=dict)
    options: Mapping[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)

    def default_collection(self, sensor: str) -> str | None:
        """The collection of a sensor that is searched when none is named; None if there is none."""
        return next((name for name, each in self.collections.items() if each.sensor == sensor), None)

    def options_for(self, href: str) -> tuple[tuple[str, str], ...]:
        """GDAL's configuration options for reading an href."""
        return next((each for start, each in self.options.items() if href.startswith(start)), ())


class _Shipped(Mapping[str, Profile]):
    """The profiles that come with the package, each read when it is asked for."""

    def __getitem__(self, name: str) -> Profile:
        if name not in _names():
            raise KeyError(name)
        return _shipped(name)

    def __iter__(self) -> Iterator[str]:
        return iter(_names())

    def __len__(self) -> int:
        return len(_names())


PROFILES: Final[Mapping[str, Profile]] = _Shipped()


@cache
def _names() -> tuple[str, ...]:
    folder = resources.files("glaciercube.catalog") / "providers"
    return tuple(sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml")))


@cache
def _shipped(name: str) -> Profile:
    from glaciercube.catalog.profile_file import parse_profile

    file = resources.files("glaciercube.catalog") / "providers" / f"{name}.yaml"
    return parse_profile(file.read_text(encoding="utf-8"), f"{name}.yaml")


def signer(signing: str) -> Callable[[str], str] | None:
    """A function that signs an asset's URL when it is about to be read, or None where none is needed.

    Parameters
    ----------
    signing : str
        ``""``; ``"planetary-computer"``; or ``"query:NAME=$VARIABLE"``, which adds the value of an environment variable
        as a parameter of the query. ``"bearer:$VARIABLE"`` is a header, which the reader sends: no URL changes.

    Raises
    ------
    CatalogError
        If the provider's package is not installed, the variable is not set, or the way of signing is unknown.
    """
    if not signing or signing.startswith("bearer:$"):
        return None
    if signing.startswith(_QUERY):
        return _query_signer(signing.removeprefix(_QUERY))
    if signing != "planetary-computer":
        raise CatalogError(
            f"unknown way of signing {signing!r}", "write planetary-computer, query:NAME=$VARIABLE or bearer:$VARIABLE"
        )
    try:
        import planetary_computer
    except ImportError as error:
        raise CatalogError(
            "Planetary Computer's assets must be signed, and the package planetary-computer is not installed",
            "pip install 'glaciercube[planetary-computer]'",
        ) from error
    return _hushed(planetary_computer.sign_url)


def _hushed(sign: Callable[[str], str]) -> Callable[[str], str]:
    """The same signer, whose signatures do not get into logs."""

    def signed(href: str) -> str:
        url = sign(href)
        if url != href:
            hide(urlsplit(url).query)
        return url

    return signed


def _query_signer(rule: str) -> Callable[[str], str]:
    name, _, variable = rule.partition("=$")
    if not (name and variable):
        raise CatalogError(f"unknown way of signing 'query:{rule}'", "write it as query:NAME=$VARIABLE")

    def sign(href: str) -> str:
        # Read each time, so that a token may be renewed during a run.
        token = os.environ.get(variable)
        if not token:
            raise CatalogError(f"the environment variable {variable} is not set", "put the token for the assets in it")
        if not href.startswith(("http://", "https://")):
            return href
        return f"{href}{'&' if '?' in href else '?'}{name}={quote(token, safe='')}"

    sign("")
    return _hushed(sign)
