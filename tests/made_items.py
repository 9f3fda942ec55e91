"""STAC catalogues without pixels, for tests of searches: items as providers word them, made by hand."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

Json = dict[str, Any]
OPTICAL = ("B02", "B03", "B04", "B08", "B11", "B12", "SCL")
KHUMBU = (86.78, 27.95, 86.85, 28.0)


def ring(west: float, south: float, east: float, north: float) -> Json:
    corners = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    return {"type": "Polygon", "coordinates": [corners]}


def optical(
    when: dt.datetime,
    *,
    platform: str = "A",
    orbit: int = 76,
    tile: str = "45RVL",
    baseline: str = "05.00",
    cloud: float | None = 10.0,
    sensed: dt.datetime | None = None,
    generated: dt.datetime | None = None,
    box: tuple[float, float, float, float] = (86.0, 27.5, 87.2, 28.5),
    **properties: Any,
) -> Json:
    """A Sentinel-2 L2A granule, worded as Planetary Computer does; ``when`` is the start of its datatake."""
    sensed, generated = sensed or when, generated or when + dt.timedelta(hours=6)
    begin, strip, done = (f"{moment:%Y%m%dT%H%M%S}" for moment in (when, sensed, generated))
    said = {
        "datetime": f"{sensed:%Y-%m-%dT%H:%M:%SZ}",
        "platform": f"Sentinel-2{platform}",
        "sat:relative_orbit": orbit,
        "s2:mgrs_tile": tile,
        "s2:processing_baseline": baseline,
        "s2:datatake_id": f"GS2{platform}_{begin}_012345_N{baseline}",
        "s2:datastrip_id": f"S2{platform}_OPER_MSI_L2A_DS_VGS2_{done}_S{strip}_N{baseline}",
        "s2:generation_time": f"{generated:%Y-%m-%dT%H:%M:%SZ}",
        "proj:epsg": 32645,
        **({} if cloud is None else {"eo:cloud_cover": cloud}),
    }
    name = f"S2{platform}_MSIL2A_{begin}_R{orbit:03d}_T{tile}_{done}"
    return item("sentinel-2-l2a", name, said | properties, OPTICAL, box)


def radar(
    when: dt.datetime,
    *,
    platform: str = "A",
    orbit: int = 12,
    direction: str = "ascending",
    bands: tuple[str, ...] = ("vv", "vh"),
    box: tuple[float, float, float, float] = (86.0, 27.0, 88.0, 29.0),
    **properties: Any,
) -> Json:
    """A Sentinel-1 RTC scene, worded as Planetary Computer does."""
    said = {
        "datetime": f"{when:%Y-%m-%dT%H:%M:%SZ}",
        "platform": f"SENTINEL-1{platform}",
        "sat:orbit_state": direction,
        "sat:relative_orbit": orbit,
        "sar:instrument_mode": "IW",
        "sar:product_type": "GRD",
        "sar:polarizations": [band.upper() for band in bands],
        "proj:epsg": 32645,
    }
    return item("sentinel-1-rtc", f"S1{platform}_{when:%Y%m%dT%H%M%S}_{orbit}_rtc", said | properties, bands, box)


def item(collection: str, name: str, properties: Json, assets: Iterable[str], box: Iterable[float]) -> Json:
    bounds = list(box)
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": [],
        "id": name,
        "collection": collection,
        "geometry": ring(*bounds),
        "bbox": bounds,
        "properties": properties,
        "links": [],
        "assets": {key: {"href": f"./{name}_{key}.tif", "roles": ["data"]} for key in assets},
    }


def write(folder: Path, items: Iterable[Json]) -> Path:
    """A static catalogue of these items."""
    members: dict[str, list[Json]] = {}
    for each in items:
        members.setdefault(each["collection"], []).append(each)
    for name, inside in members.items():
        (folder / name).mkdir(parents=True)
        for number, each in enumerate(inside):
            (folder / name / f"{number}.json").write_text(json.dumps(each))
        links = [{"rel": "item", "href": f"./{number}.json"} for number in range(len(inside))]
        extent = {"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [[None, None]]}}
        text = {"type": "Collection", "id": name, "stac_version": "1.0.0", "description": name, "license": "CC0-1.0"}
        (folder / name / "collection.json").write_text(json.dumps({**text, "extent": extent, "links": links}))
    children = [{"rel": "child", "href": f"./{name}/collection.json"} for name in members]
    path = folder / "catalog.json"
    path.write_text(
        json.dumps({"type": "Catalog", "id": "made", "stac_version": "1.0.0", "description": "made", "links": children})
    )
    return path
