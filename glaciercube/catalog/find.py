"""find(): ask a catalogue for the scenes of a region, resolve duplicates and fix the time labels."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pystac
import shapely.geometry

from glaciercube.catalog.scenes import COLUMNS, Scenes, without_secrets
from glaciercube.catalog.source import Interval, Source, open_source
from glaciercube.errors import CatalogError, ConfigError, EmptySearchError
from glaciercube.region import Region
from glaciercube.sensors import BandSource, SceneFacts, Sensor, get_sensor, item_time, resolve_bands

__all__ = ["SensorOptions", "find", "parse_interval"]


@dataclass(frozen=True)
class SensorOptions:
    """What to take of one sensor.

    Attributes
    ----------
    collection : str or None
        STAC collection; the provider's default for this sensor when None.
    max_cloud_cover : float
        Percent (``eo:cloud_cover``) above which a scene is left out; scenes that do not say are kept.
    bands : tuple of str
        Bands beyond those that are read by default, such as ``"rededge1"``.
    """

    collection: str | None = None
    max_cloud_cover: float = 100.0
    bands: tuple[str, ...] = ()


def find(
    catalog: str | Path,
    region: Region,
    time: str,
    sensors: Iterable[str] | Mapping[str, SensorOptions] = ("sentinel-2", "sentinel-1", "dem"),
) -> Scenes:
    """Search a catalogue and freeze the answer.

    Parameters
    ----------
    catalog : str or Path
        A path to a static ``catalog.json``, a STAC API's URL, or a provider's name.
    region : Region
        Where.
    time : str
        STAC interval in UTC such as ``"2024-01-01/2024-12-31"``; a date, month or year stands for all of it.
    sensors : iterable of str or mapping
        Names of sensors, or name -> `SensorOptions`.

    Returns
    -------
    Scenes
        Duplicates resolved (newest baseline of a datatake and tile), one time label per overpass and solar day.

    Raises
    ------
    EmptySearchError
        If a sensor has no scene there and then.
    CatalogError
        If the catalogue cannot be read or lacks the collection.
    ConfigError
        If a sensor is unknown or the interval cannot be read.
    """
    source, interval = open_source(catalog), parse_interval(time)
    wanted = sensors if isinstance(sensors, Mapping) else {name: SensorOptions() for name in sensors}
    if not wanted:
        raise ConfigError("no sensor was asked for", "name at least one, such as sentinel-2")
    rows: list[dict[str, Any]] = []
    for name, options in wanted.items():
        rows += _search_sensor(source, get_sensor(name), options, region, interval)
    return _freeze(rows, source)


def parse_interval(time: str) -> Interval:
    """Read a STAC interval.

    Parameters
    ----------
    time : str
        ``"start/end"`` or a single date, each ``YYYY``, ``YYYY-MM``, ``YYYY-MM-DD`` or a full ISO time; an end stands
        for the last moment of what it names. ``..`` leaves an end open.

    Returns
    -------
    (datetime, datetime)
        UTC; None where it is open.

    Raises
    ------
    ConfigError
        If it cannot be read or ends before it starts.
    """
    first, slash, last = (part.strip() for part in str(time).partition("/"))
    try:
        start, end = _period(first, slash), _period(last if slash else first, slash)
        begin = start.start_time.to_pydatetime().replace(tzinfo=dt.UTC) if start else None
        finish = end.end_time.floor("us").to_pydatetime().replace(tzinfo=dt.UTC) if end else None
    except (ValueError, AttributeError) as error:
        raise ConfigError(f"time {time!r} is not an interval", "write it as 2024-01-01/2024-12-31") from error
    if begin and finish and finish < begin:
        raise ConfigError(f"time {time!r} ends before it starts", "write the earlier date first")
    return begin, finish


def _period(text: str, open_ended: str) -> pd.Period | None:
    return None if open_ended and text in ("", "..") else pd.Period(text)


def _search_sensor(
    source: Source, sensor: Sensor, options: SensorOptions, region: Region, interval: Interval
) -> list[dict[str, Any]]:
    collection = options.collection or sensor.collections[0]
    boxes = region.search_boxes(8 * region.resolution)
    items = source.items(collection, boxes, None if sensor.static else interval)
    items = [item for item in items if not _cloudier(item, options.max_cloud_cover)]
    if not items:
        raise _nothing(source, sensor, collection, region, interval)
    kept = _resolve_duplicates([(item, sensor.facts(item)) for item in items])
    return [
        _row(sensor, collection, item, facts, resolve_bands(item, sensor, options.bands), region.longitude)
        for item, facts in kept
    ]


def _nothing(source: Source, sensor: Sensor, collection: str, region: Region, interval: Interval) -> CatalogError:
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


def _resolve_duplicates(scenes: list[tuple[pystac.Item, SceneFacts]]) -> list[tuple[pystac.Item, SceneFacts]]:
    best: dict[str, tuple[Any, ...]] = {}
    for _, facts in scenes:
        # Parts of one baseline complete each other, so only the baseline ranks across parts.
        best[facts.key] = max(best.get(facts.key, ()), facts.rank[:1])
    newest: dict[tuple[str, str], tuple[pystac.Item, SceneFacts]] = {}
    for item, facts in scenes:
        if facts.rank[:1] != best[facts.key]:
            continue
        known = newest.get((facts.key, facts.part))
        if known is None or known[1].rank < facts.rank:
            newest[facts.key, facts.part] = (item, facts)
    return list(newest.values())


def _row(
    sensor: Sensor,
    collection: str,
    item: pystac.Item,
    facts: SceneFacts,
    bands: Mapping[str, BandSource],
    longitude: float,
) -> dict[str, Any]:
    acquired = item_time(item)
    # Mean solar time: 15 degrees of longitude to the hour.
    day = (acquired + dt.timedelta(hours=longitude / 15.0)).date()
    return {
        "sensor": sensor.name,
        "collection": collection,
        "id": item.id,
        "datetime": acquired,
        # Granules of one datatake differ by seconds: its start is a label that does not depend on which were found.
        "time": facts.began or acquired,
        "solar_day": day.isoformat(),
        "group": sensor.node if sensor.static else f"{day.isoformat()}/{facts.overpass}",
        "level": facts.level,
        "offset": facts.offset,
        "sun_azimuth": facts.sun_azimuth,
        "sun_elevation": facts.sun_elevation,
        "notes": json.dumps(dict(facts.notes), sort_keys=True),
        "bands": json.dumps({name: source.as_dict() for name, source in bands.items()}, sort_keys=True),
        "item": json.dumps(_unsigned(item), sort_keys=True),
        "geometry": shapely.geometry.shape(item.geometry) if item.geometry else shapely.box(*(item.bbox or ())),
    }


def _freeze(rows: list[dict[str, Any]], source: Source) -> Scenes:
    import geopandas as gpd

    table = gpd.GeoDataFrame(rows, geometry="geometry", crs="EPSG:4326")
    # Millisecond labels survive GeoParquet and CF alike.
    for name in ("datetime", "time"):
        table[name] = pd.to_datetime(table[name], utc=True).dt.tz_localize(None).astype("datetime64[ms]")
    table["time"] = table.groupby(["sensor", "group"])["time"].transform("min")
    table = table.sort_values(["sensor", "time", "id"]).reset_index(drop=True)
    return Scenes(table[list(COLUMNS)], without_secrets(source.location), source.signing)


def _unsigned(item: pystac.Item) -> dict[str, Any]:
    content: dict[str, Any] = item.to_dict(include_self_link=False, transform_hrefs=False)
    content["links"] = []
    for asset in content["assets"].values():
        asset["href"] = without_secrets(asset["href"])
    return content


def _cloudier(item: pystac.Item, limit: float) -> bool:
    cover = item.properties.get("eo:cloud_cover")
    return cover is not None and float(cover) > limit
