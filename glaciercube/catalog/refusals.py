"""Why scenes are not used, and what is said where none is left."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from glaciercube.catalog.interval import Interval
from glaciercube.catalog.source import Source
from glaciercube.errors import CatalogError, EmptySearchError
from glaciercube.region import Region
from glaciercube.sensors import Sensor

__all__ = ["LeftOut", "none_usable", "nothing_found"]


@dataclass(frozen=True)
class LeftOut:
    """A scene that is not used.

    Attributes
    ----------
    sensor, collection, id : str
        Which.
    reason, remedy : str
        Why, and what the user can do.
    """

    sensor: str
    collection: str
    id: str
    reason: str
    remedy: str = ""


def none_usable(sensor: Sensor, collections: Sequence[str], lost: Sequence[LeftOut]) -> EmptySearchError:
    """The error of a search whose scenes are all of no use: the commonest reason, and its remedy."""
    # Reasons that differ in numbers only are one.
    kinds = Counter(re.sub(r"[\d.]+", "#", each.reason) for each in lost)
    kind, count = kinds.most_common(1)[0]
    first = next(each for each in lost if re.sub(r"[\d.]+", "#", each.reason) == kind)
    return EmptySearchError(
        f"none of the {len(lost)} scenes of {', '.join(collections)} for {sensor.name} can be used: "
        f"{count} of them are like {first.id}: {first.reason}",
        first.remedy,
    )


def nothing_found(source: Source, sensor: Sensor, collection: str, region: Region, interval: Interval) -> CatalogError:
    """The error of a search that found no scene at all."""
    offered = source.collections()
    if collection not in offered:
        others = [name for name in sensor.collections if name in offered]
        remedy = f"set sensors: {{{sensor.name}: {{collection: {others[0]}}}}}" if others else "leave the sensor out"
        return CatalogError(
            f"the catalogue {source} has no collection {collection} for {sensor.name} "
            f"(it has {', '.join(offered) or 'none'})",
            remedy,
        )
    west, south, east, north = region.bbox
    ends = (f" {word} {end:%Y-%m-%d}" for word, end in zip(("from", "to"), interval, strict=True) if end)
    when = "" if sensor.static else "".join(ends)
    return EmptySearchError(
        f"no scene of {collection} meets {region.name} "
        f"({west:.3f} {south:.3f} {east:.3f} {north:.3f}){when} in {source}",
        "check place, interval and max_cloud_cover, or leave the sensor out",
    )
