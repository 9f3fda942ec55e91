"""find(): ask a catalogue for the scenes of a region, resolve duplicates and fix the time labels."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pystac

from glaciercube.catalog.footprint import footprint
from glaciercube.catalog.interval import Interval, parse_interval, written
from glaciercube.catalog.observe import Scene, observations, without_duplicates
from glaciercube.catalog.profiles import Profile
from glaciercube.catalog.refusals import LeftOut, none_usable, nothing_found
from glaciercube.catalog.resolve import resolve
from glaciercube.catalog.scenes import COLUMNS, LEFT_OUT, Scenes
from glaciercube.catalog.source import Source, open_source
from glaciercube.catalog.unsigned import unsigned, without_secrets
from glaciercube.errors import BandError, ConfigError
from glaciercube.region import Region
from glaciercube.sensors import Layer, LayerOptions, Sensor, Sentinel1, get_sensor, item_time
from glaciercube.sensors.sentinel1 import radar_mismatch

__all__ = ["SensorOptions", "find", "parse_interval"]


@dataclass(frozen=True)
class SensorOptions:
    """What to take of one sensor.

    Attributes
    ----------
    collection : str or tuple of str or None
        STAC collection; the provider's default for this sensor when None. Of several, scenes that are in more than one
        are taken once: the newest baseline, and of equals the one whose collection is named first.
    max_cloud_cover : float
        Percent (``eo:cloud_cover``) above which a scene is left out; scenes that do not say are kept.
    bands : tuple of str
        Bands beyond those that are read by default, such as ``"rededge1"``.
    orbit : str or int or None
        Sentinel-1: only ``"ascending"``, ``"descending"`` or this relative orbit.
    polarizations : tuple of str
        Sentinel-1: only scenes that have all of these, such as ``("vv", "vh")``.
    instrument_mode : str or None
        Sentinel-1: only ``"IW"`` or ``"EW"``.
    """

    collection: str | tuple[str, ...] | None = None
    max_cloud_cover: float = 100.0
    bands: tuple[str, ...] = ()
    orbit: str | int | None = None
    polarizations: tuple[str, ...] = ()
    instrument_mode: str | None = None


def find(
    catalog: str | Path,
    region: Region,
    time: str,
    sensors: Iterable[str] | Mapping[str, SensorOptions | LayerOptions] = ("sentinel-2", "sentinel-1", "dem"),
) -> Scenes:
    """Search a catalogue and freeze the answer.

    Parameters
    ----------
    catalog : str or Path
        A provider's name, a STAC API's URL, the path of a static ``catalog.json``, or of a profile (``.yaml``).
    region : Region
        Where.
    time : str
        STAC interval in UTC such as ``"2024-01-01/2024-12-31"``; a date, month or year stands for all of it.
    sensors : iterable of str or mapping
        Names of sensors, or name -> `SensorOptions`; a layer of your own has a name of your own, and `LayerOptions`.

    Returns
    -------
    Scenes
        Duplicates resolved (newest baseline of a datatake and tile), one time label per overpass and solar day. Scenes
        that cannot be used are in ``left_out``, with the reason.

    Raises
    ------
    EmptySearchError
        If a sensor has no scene there and then, or none that can be used.
    CatalogError
        If the catalogue cannot be read or lacks the collection.
    ConfigError
        If a sensor, a band or a profile's key is unknown, or the interval cannot be read.
    """
    source, interval = open_source(catalog), parse_interval(time)
    wanted = sensors if isinstance(sensors, Mapping) else {name: SensorOptions() for name in sensors}
    if not wanted:
        raise ConfigError("no sensor was asked for", "name at least one, such as sentinel-2")
    searches = [_search(source, name, options) for name, options in wanted.items()]
    rows: list[dict[str, Any]] = []
    left_out: list[LeftOut] = []
    for searched, sensor, options in searches:
        rows += _search_sensor(searched, sensor, options, (region, interval), left_out)
    return _freeze(rows, source, left_out, written(interval))


def _search(source: Source, name: str, options: SensorOptions | LayerOptions) -> tuple[Source, Sensor, SensorOptions]:
    """Where to look for what; layers may have a catalogue of their own."""
    if isinstance(options, LayerOptions):
        own = open_source(options.catalog) if options.catalog else None
        # Tokens of one catalogue are not for the files of another.
        layer = Layer(name, options, own.signing if own else None)
        return own or source, layer, SensorOptions(collection=options.collection)
    _check(get_sensor(name), options)
    return source, get_sensor(name), options


def _check(sensor: Sensor, options: SensorOptions) -> None:
    known = [band.name for band in sensor.bands]
    for name in options.bands:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise ConfigError(
                f"{sensor.name} has no band {name!r}",
                f"did you mean {near[0]}?" if near else f"choose among {', '.join(known)}",
            )
    asked = options.orbit is not None or options.polarizations or options.instrument_mode is not None
    if asked and sensor.name != Sentinel1.name:
        raise ConfigError(
            f"orbit, polarizations and instrument_mode are not options of {sensor.name}",
            f"write them under {Sentinel1.name}",
        )


def _search_sensor(
    source: Source,
    sensor: Sensor,
    options: SensorOptions,
    where: tuple[Region, Interval],
    left_out: list[LeftOut],
) -> list[dict[str, Any]]:
    region, interval = where
    collections = _collections(source, sensor, options)
    # Interpolation reaches beyond the grid: by pixels of the grid, and by those of 30 m that elevation is stored in;
    # and a pixel's topographic position by 500 m, or one pixel.
    boxes = region.search_boxes(max(9 * region.resolution, 750.0) if sensor.static else 8 * region.resolution)
    scenes: list[Scene] = []
    lost: list[LeftOut] = []
    for collection in collections:
        broken: list[tuple[str, str]] = []
        for item in source.items(collection, boxes, None if sensor.static else interval, broken):
            scene = _usable(item, sensor, options, source.profile, collection)
            if isinstance(scene, Scene):
                scenes.append(scene)
            else:
                lost.append(scene)
        lost += [LeftOut(sensor.name, collection, name, reason, "tell its operator") for name, reason in broken]
    if not scenes:
        raise none_usable(sensor, collections, lost) if lost else nothing_found(source, sensor, collections[0], *where)
    kept, doubled = without_duplicates(scenes)
    lost += [
        LeftOut(sensor.name, scene.collection, scene.item.id, f"{instead.item.id} ({instead.collection}) supersedes it")
        for scene, instead in doubled
    ]
    left_out += lost
    labels = [("", sensor.node)] * len(kept) if sensor.static else observations(kept, region.longitude)
    return [_row(sensor, scene, group) for scene, group in zip(kept, labels, strict=True)]


def _collections(source: Source, sensor: Sensor, options: SensorOptions) -> tuple[str, ...]:
    if isinstance(options.collection, str):
        return (options.collection,)
    if options.collection:
        return options.collection
    known = source.profile.default_collection(sensor.name) if source.profile else None
    return (known or sensor.collections[0],)


def _usable(
    item: pystac.Item, sensor: Sensor, options: SensorOptions, profile: Profile | None, collection: str
) -> Scene | LeftOut:
    """A scene, or why it is left out."""

    def left(reason: str, remedy: str) -> LeftOut:
        return LeftOut(sensor.name, collection, item.id, reason.removeprefix(f"scene {item.id} "), remedy)

    try:
        item_time(item)
        footprint(item)
        cover = item.properties.get("eo:cloud_cover")
        if cover is not None and float(cover) > options.max_cloud_cover:
            reason = f"its cloud cover of {float(cover):.0f} % is above {options.max_cloud_cover:g} %"
            return left(reason, "raise max_cloud_cover")
        facts, bands = resolve(item, sensor, options.bands, profile, collection)
        if sensor.name == Sentinel1.name:
            mismatch = radar_mismatch(
                facts.notes,
                orbit=options.orbit,
                polarizations=options.polarizations,
                instrument_mode=options.instrument_mode,
            )
            if mismatch:
                return left(mismatch, "ask for what there is, or leave that option out")
    except BandError as error:
        return left(error.problem, error.remedy)
    except (ValueError, TypeError, KeyError) as error:
        return left(f"its metadata cannot be understood ({error})", "leave it out, or tell its provider")
    return Scene(item, collection, facts, bands)


def _row(sensor: Sensor, scene: Scene, label: tuple[str, str]) -> dict[str, Any]:
    item, facts = scene.item, scene.facts
    day, group = label
    return {
        "sensor": sensor.name,
        "collection": scene.collection,
        "id": item.id,
        "datetime": item_time(item),
        # Granules of one datatake differ by seconds: its start is a label that does not depend on which were found.
        "time": scene.began,
        "solar_day": day or item_time(item).date().isoformat(),
        "group": group,
        "level": facts.level,
        "offset": facts.offset,
        "sun_azimuth": facts.sun_azimuth,
        "sun_elevation": facts.sun_elevation,
        "notes": json.dumps(dict(facts.notes), sort_keys=True),
        "bands": json.dumps({name: source.as_dict() for name, source in scene.bands.items()}, sort_keys=True),
        "item": json.dumps(unsigned(item), sort_keys=True),
        "geometry": footprint(item),
    }


def _freeze(rows: list[dict[str, Any]], source: Source, left_out: list[LeftOut], interval: str) -> Scenes:
    import geopandas as gpd

    table = gpd.GeoDataFrame(rows, geometry="geometry", crs="EPSG:4326")
    # Millisecond labels survive GeoParquet and CF alike.
    for name in ("datetime", "time"):
        table[name] = pd.to_datetime(table[name], utc=True).dt.tz_localize(None).astype("datetime64[ms]")
    table["time"] = table.groupby(["sensor", "group"])["time"].transform("min")
    table = table.sort_values(["sensor", "time", "id"]).reset_index(drop=True)
    lost = sorted(([each.sensor, each.collection, each.id, each.reason] for each in left_out), key=lambda row: row[:3])
    return Scenes(
        table[list(COLUMNS)],
        without_secrets(source.location),
        source.signing,
        pd.DataFrame(lost, columns=list(LEFT_OUT), dtype=object),
        interval,
    )
