"""make_rtc(): terrain-corrected scenes from GRD products, as a catalogue that `find` and `load` take in."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree as ET

import numpy as np
import rasterio
import xarray as xr
from odc.geo.geobox import GeoBox

from glaciercube.errors import CatalogError, ReadError
from glaciercube.region import Region
from glaciercube.rtc.terrain_correct import RtcOptions, terrain_correct
from glaciercube.sensors.sentinel1 import POLARIZATIONS

__all__ = ["COLLECTION", "make_rtc"]

COLLECTION: Final = "sentinel-1-rtc"

_COG: Final = "image/tiff; application=geotiff; profile=cloud-optimized"
_SCHEMA: Final = "https://stac-extensions.github.io/{}/schema.json"
_NODATA: Final = {"local_incidence": float("nan"), "layover_shadow": 0.0}


def make_rtc(
    safe_folder: str | Path,
    dem: str | Path,
    region: Region,
    folder: str | Path,
    options: RtcOptions | None = None,
) -> Path:
    """Terrain-correct a GRD product and add it to a catalogue on disk.

    Parameters
    ----------
    safe_folder : str or Path
        The unpacked product, ``….SAFE``.
    dem : str or Path
        Raster of elevations in metres that reaches beyond the region.
    region : Region
        Its geobox is the grid of what is written; loaded on the same grid, pixels come back as they are.
    folder : str or Path
        The catalogue's; made if missing, added to otherwise. The same product again replaces its scene.
    options : RtcOptions or None
        See `glaciercube.rtc.terrain_correct.terrain_correct`.

    Returns
    -------
    Path
        ``folder / "catalog.json"``, with the collection ``sentinel-1-rtc``: assets ``vv vh`` or ``hh hv``,
        ``local_incidence`` and ``layover_shadow``.

    Raises
    ------
    ConfigError
        If sarsen is not installed, or the geoid's height is not known.
    ReadError
        If the product or the elevation model cannot be read.
    BandError
        If it is not a GRD product.
    CatalogError
        If the folder cannot be written.
    """
    options = options or RtcOptions()
    scene = terrain_correct(safe_folder, dem, region, options)
    safe, home = Path(safe_folder), Path(folder) / COLLECTION
    name = f"{safe.name.removesuffix('.SAFE')}_rtc"
    item = _item(name, scene, region.geobox, _properties(safe), options)
    try:
        (home / name).mkdir(parents=True, exist_ok=True)
        for key, asset in item["assets"].items():
            _write(home / name / asset["href"], scene[key], region.geobox)
        (home / name / f"{name}.json").write_text(json.dumps(item, indent=1))
        return _write_catalog(home)
    except OSError as error:
        raise CatalogError(f"cannot write to {folder} ({error})", "free space or choose another folder") from error


def _properties(safe: Path) -> dict[str, Any]:
    """What the manifest says of the acquisition, in STAC's words."""
    try:
        root = ET.parse(safe / "manifest.safe").getroot()  # noqa: S314 - ESA's own, a local file
    except (OSError, ET.ParseError) as error:
        raise ReadError(f"cannot read the manifest of {safe.name} ({error})", "unpack it again, whole") from error
    said: dict[str, list[str]] = {}
    for element in root.iter():
        said.setdefault(element.tag.rpartition("}")[2], []).append((element.text or "").strip())
    try:
        begin, end = (_utc(said[name][0]) for name in ("startTime", "stopTime"))
        properties: dict[str, Any] = {
            "datetime": _iso(begin + (end - begin) / 2),
            "start_datetime": _iso(begin),
            "end_datetime": _iso(end),
            "platform": f"sentinel-1{said['number'][0].lower()}",
            "constellation": "sentinel-1",
            "sar:instrument_mode": said["mode"][0],
            "sar:frequency_band": "C",
            "sar:product_type": "RTC",
            "sar:polarizations": said["transmitterReceiverPolarisation"],
            "sat:orbit_state": said["pass"][0].lower(),
            "sat:relative_orbit": int(said["relativeOrbitNumber"][0]),
            "sat:absolute_orbit": int(said["orbitNumber"][0]),
        }
    except (KeyError, IndexError, ValueError) as error:
        raise ReadError(f"the manifest of {safe.name} lacks {error}", "unpack the product again, whole") from error
    for name, key in (("sliceNumber", "s1:slice_number"), ("totalSlices", "s1:total_slices")):
        if said.get(name, [""])[0].isdigit():
            properties[key] = int(said[name][0])
    if said.get("missionDataTakeID"):
        properties["s1:datatake_id"] = said["missionDataTakeID"][0]
    return properties


def _item(
    name: str, scene: xr.Dataset, grid: GeoBox, properties: Mapping[str, Any], options: RtcOptions
) -> dict[str, Any]:
    footprint = grid.extent.to_crs("EPSG:4326", resolution=abs(grid.resolution.x) * 64)
    box, bounds = footprint.boundingbox, grid.boundingbox
    crs = str(grid.crs)
    assets: dict[str, Any] = {}
    for key in map(str, scene.data_vars):
        stored = {"data_type": str(scene[key].dtype), "spatial_resolution": abs(grid.resolution.x)}
        # JSON has no NaN: STAC spells it.
        nodata: float | str = -32768 if key in POLARIZATIONS else "nan" if key == "local_incidence" else 0
        text = str(scene[key].attrs["long_name"])
        bands = [{"nodata": nodata, **stored}]
        assets[key] = {"href": f"./{key}.tif", "type": _COG, "roles": ["data"], "title": text, "raster:bands": bands}
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": [_SCHEMA.format(each) for each in ("sar/v1.0.0", "sat/v1.0.0", "raster/v1.1.0")]
        + [_SCHEMA.format("projection/v2.0.0")],
        "id": name,
        "collection": COLLECTION,
        "geometry": footprint.json,
        "bbox": [box.left, box.bottom, box.right, box.top],
        "properties": {
            **properties,
            "processing:software": {"sarsen": _version("sarsen"), "xarray-sentinel": _version("xarray-sentinel")},
            "glaciercube:rtc": asdict(options),
            "proj:code" if re.fullmatch(r"EPSG:\d+", crs) else "proj:wkt2": crs,
            "proj:shape": list(grid.shape),
            "proj:transform": list(grid.transform)[:6],
            "proj:bbox": [bounds.left, bounds.bottom, bounds.right, bounds.top],
        },
        "links": [{"rel": "collection", "href": "../collection.json", "type": "application/json"}],
        "assets": assets,
    }


def _write(path: Path, layer: xr.DataArray, grid: GeoBox) -> None:
    name = str(layer.name)
    values = layer.to_numpy()
    if name in POLARIZATIONS:
        values = np.where(np.isfinite(values), values, np.float32(-32768))
    profile: dict[str, Any] = {
        "driver": "COG",
        "height": values.shape[0],
        "width": values.shape[1],
        "count": 1,
        "dtype": values.dtype.name,
        "crs": str(grid.crs),
        "transform": grid.transform,
        "nodata": _NODATA.get(name, -32768.0),
        "compress": "DEFLATE",
        "predictor": "YES",
        "overview_resampling": "MODE" if values.dtype.kind == "u" else "AVERAGE",
    }
    try:
        with rasterio.open(path, "w", **profile) as target:
            target.write(values, 1)
    except Exception as error:  # GDAL's own exceptions come through rasterio, and have no public base
        raise OSError(f"{path.name}: {error}") from error


def _write_catalog(home: Path) -> Path:
    """Write the collection over all items there are, and last the catalogue."""
    items = [json.loads(path.read_text()) for path in sorted(home.glob("*/*.json"))]
    boxes = np.array([item["bbox"] for item in items])
    times = sorted(item["properties"]["datetime"] for item in items)
    extent = [*boxes[:, :2].min(axis=0).tolist(), *boxes[:, 2:].max(axis=0).tolist()]
    content = {
        "type": "Collection",
        "id": COLLECTION,
        "stac_version": "1.0.0",
        "description": "Sentinel-1 gamma nought, terrain-corrected from GRD with sarsen by glaciercube.",
        "license": "other",
        "extent": {"spatial": {"bbox": [extent]}, "temporal": {"interval": [[times[0], times[-1]]]}},
        "links": [{"rel": "item", "href": f"./{item['id']}/{item['id']}.json"} for item in items],
    }
    (home / "collection.json").write_text(json.dumps(content, indent=1))
    catalog = {
        "type": "Catalog",
        "id": COLLECTION,
        "stac_version": "1.0.0",
        "description": "Terrain-corrected Sentinel-1 scenes.",
        "links": [{"rel": "child", "href": f"./{COLLECTION}/collection.json", "type": "application/json"}],
    }
    path = home.parent / "catalog.json"
    path.write_text(json.dumps(catalog, indent=1))
    return path


def _version(package: str) -> str:
    import importlib.metadata

    return importlib.metadata.version(package)


def _utc(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text.removesuffix("Z")).replace(tzinfo=dt.UTC)


def _iso(when: dt.datetime) -> str:
    return when.astimezone(dt.UTC).isoformat().replace("+00:00", "Z")
