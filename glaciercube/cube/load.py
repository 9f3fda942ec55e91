"""load(): scenes onto the region's grid as lazy arrays in physical units, a node per sensor."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import odc.stac
import pystac
import xarray as xr
from odc.geo.geobox import GeoBox

from glaciercube.catalog import Scenes, signer
from glaciercube.cube.north import grid_north
from glaciercube.cube.reader import Driver
from glaciercube.cube.terrain import TERRAIN_HALO, terrain_variables
from glaciercube.errors import CubeError, require
from glaciercube.region import Region
from glaciercube.sensors import Band, Sensor, find_assets, get_sensor

__all__ = ["LoadOptions", "load"]


@dataclass(frozen=True)
class LoadOptions:
    """How pixels are read.

    Attributes
    ----------
    cell : int
        Side of a lattice cell in pixels. Every read is of whole cells anchored at the grid's origin, so that a pixel
        has one value whichever block asks for it.
    """

    cell: int = 256

    def __post_init__(self) -> None:
        require(self.cell >= 1, f"cell {self.cell} is not a number of pixels", "give 1 or more, such as 256")


def load(scenes: Scenes, region: Region, options: LoadOptions | None = None) -> xr.DataTree:
    """Lay scenes on the region's grid, lazily.

    Parameters
    ----------
    scenes : Scenes
        From `glaciercube.catalog.find`.
    region : Region
        Its geobox is the grid.
    options : LoadOptions or None
        Reading options.

    Returns
    -------
    DataTree
        ``/sentinel2`` (time, y, x): ``blue green red nir swir16 swir22`` reflectance [1], ``scl`` where published;
        ``/sentinel1`` (time, y, x): ``vv vh`` linear power and ``vv_db vh_db`` dB; ``/terrain`` (y, x):
        ``elevation`` m, ``slope`` degrees, ``aspect_sin``, ``aspect_cos``, ``curvature`` 1/m. float32, NaN where there
        is no data. Nothing is read until it is computed; a read that fails raises `ReadError` then.

    Raises
    ------
    BandError
        If a scene lacks a required band.
    CubeError
        If there are no scenes.
    """
    options = options or LoadOptions()
    if not len(scenes):
        raise CubeError("there are no scenes to load", "run find with a wider interval or region")
    nodes: dict[str, xr.Dataset] = {}
    for name in scenes.sensors:
        sensor = get_sensor(name)
        own = scenes.of(name)
        nodes[sensor.node] = (
            _load_terrain(sensor, own, region, options) if sensor.static else _load_series(sensor, own, region, options)
        )
    return xr.DataTree.from_dict(nodes, name=region.name)


def _load_series(sensor: Sensor, scenes: Scenes, region: Region, options: LoadOptions) -> xr.Dataset:
    table = scenes.table
    layers: dict[np.datetime64, list[xr.Dataset]] = {}
    for offset, rows in table.groupby("offset", sort=True):
        # Pixels of different offsets meet in physical units, never as stored numbers.
        part = Scenes(rows, scenes.source, scenes.signing)
        raw = _read(sensor, part, region.geobox, options)
        decoded = sensor.decode(raw, xr.DataArray(np.full(raw.sizes["time"], offset), dims="time"))
        for index, time in enumerate(decoded["time"].to_numpy()):
            layers.setdefault(time, []).append(decoded.isel(time=index))
    times = sorted(layers)
    series = xr.concat(
        [_merge(layers[time]) for time in times],
        "time",
        combine_attrs="override",
        coords="minimal",
        compat="override",
        join="override",
    )
    series = series.assign_coords(time=("time", np.array(times), {"standard_name": "time", "long_name": "acquisition"}))
    if (table["level"] != "").any():
        first = table.drop_duplicates("time").set_index("time").sort_index()
        for name in ("sun_azimuth", "sun_elevation"):
            series = series.assign_coords({name: ("time", first[name].to_numpy("float32"), {"units": "degree"})})
    levels = sorted(set(table["level"]) - {""})
    return series.assign_attrs({"reflectance": "+".join(levels)} if levels else {})


def _merge(layers: list[xr.Dataset]) -> xr.Dataset:
    merged = layers[0]
    for layer in layers[1:]:
        merged = xr.Dataset(
            {
                # Classes have no NaN: 0 is their "no data".
                name: merged[name].where(merged[name] != 0, layer[name])
                if merged[name].dtype.kind == "u"
                else merged[name].fillna(layer[name])
                for name in merged.data_vars
            }
        )
    return merged


def _load_terrain(sensor: Sensor, scenes: Scenes, region: Region, options: LoadOptions) -> xr.Dataset:
    margin = TERRAIN_HALO
    padded = region.geobox.pad(margin)
    raw = _read(sensor, scenes, padded, options).isel(time=0, drop=True)
    elevation = sensor.decode(raw, xr.DataArray(0.0))["elevation"]
    # Read with its margin in place, so that slopes at the grid's edge see their neighbours.
    inside = {"y": slice(margin, -margin), "x": slice(margin, -margin)}
    chunks = {"y": options.cell, "x": options.cell}
    terrain: dict[str, xr.DataArray] = {"elevation": elevation}
    derived = elevation.data.map_overlap(
        _terrain_stack,
        depth={0: margin, 1: margin},
        boundary=np.nan,
        resolution=region.resolution,
        new_axis=0,
        chunks=(len(_TERRAIN), *elevation.data.chunks),
        dtype="float32",
        meta=np.empty((0, 0, 0), dtype="float32"),
        trim=False,
    )
    for index, (name, (units, text)) in enumerate(_TERRAIN.items()):
        terrain[name] = elevation.copy(data=derived[index]).assign_attrs(units=units, long_name=text)
        terrain[name].attrs.pop("standard_name", None)
    dataset = xr.Dataset({name: variable.isel(inside).chunk(chunks) for name, variable in terrain.items()})
    north = grid_north(region.geobox, options.cell)
    sine, cosine = dataset["aspect_sin"], dataset["aspect_cos"]
    # The sun's azimuth counts from true north, and so must the aspect: on polar grids they differ by any angle.
    dataset["aspect_sin"] = sine.copy(data=sine.data * north[1] - cosine.data * north[0])
    dataset["aspect_cos"] = cosine.copy(data=cosine.data * north[1] + sine.data * north[0])
    epochs = sorted({json.loads(text)["epoch"] for text in scenes.table["notes"]})
    return dataset.assign_attrs(epoch="/".join(epochs))


_TERRAIN: dict[str, tuple[str, str]] = {
    "slope": ("degree", "slope of the surface"),
    "aspect_sin": ("1", "sine of the downslope direction, clockwise from true north"),
    "aspect_cos": ("1", "cosine of the downslope direction, clockwise from true north"),
    "curvature": ("m-1", "Laplacian of elevation, positive in hollows"),
}


def _terrain_stack(block: np.ndarray[Any, Any], resolution: float) -> np.ndarray[Any, Any]:
    found = terrain_variables(block, resolution)
    stack = np.stack([found[name] for name in _TERRAIN])
    m = TERRAIN_HALO
    return stack[:, m:-m, m:-m]


def _read(sensor: Sensor, scenes: Scenes, geobox: GeoBox, options: LoadOptions) -> xr.Dataset:
    rows = scenes.table
    items = scenes.items()
    found = [find_assets(item, sensor) for item in items]
    bands = [band for band in sensor.bands if any(band.name in assets for assets in found)]
    lean = [
        _lean(item, assets, sensor, bands, row.time)
        for item, assets, row in zip(items, found, rows.itertuples(), strict=True)
    ]
    target = abs(geobox.resolution.x)
    raw = odc.stac.load(
        lean,
        bands=[band.name for band in bands],
        geobox=geobox,
        chunks={"time": 1, "y": options.cell, "x": options.cell},
        groupby="time",
        resampling={band.name: _resampling(band, sensor, lean[0], target) for band in bands},
        stac_cfg=_stac_config(sensor),
        fail_on_error=True,
        patch_url=signer(scenes.signing),
        driver=Driver(),
    )
    for band in bands:
        raw[band.name].attrs.setdefault("nodata", band.nodata)
    return raw


def _stac_config(sensor: Sensor) -> dict[str, Any]:
    assets = {band.name: {"data_type": band.dtype, "nodata": band.nodata} for band in sensor.bands}
    return {sensor.node: {"assets": assets, "warnings": "ignore"}}


def _lean(item: pystac.Item, assets: dict[str, str], sensor: Sensor, bands: list[Band], time: Any) -> pystac.Item:
    """A copy that says only what reading needs, under our names: providers differ in the rest."""
    keep = ("proj:code", "proj:epsg", "proj:shape", "proj:transform", "proj:wkt2", "proj:bbox")
    when = time.to_pydatetime()
    lean = pystac.Item(
        id=item.id,
        geometry=item.geometry,
        bbox=item.bbox,
        datetime=when,
        properties={key: item.properties[key] for key in keep if key in item.properties},
        # One collection for all: the reader's configuration then needs no provider names.
        collection=sensor.node,
    )
    lean.stac_extensions = [uri for uri in item.stac_extensions if "/projection/" in uri]
    for band in bands:
        if band.name not in assets:
            continue
        source = item.assets[assets[band.name]]
        declared = (source.extra_fields.get("raster:bands") or [{}])[0].get("nodata", source.extra_fields.get("nodata"))
        nodata = band.nodata if declared is None else declared
        fields = {key: value for key, value in source.extra_fields.items() if key in keep}
        fields["raster:bands"] = [{"data_type": band.dtype, "nodata": _json_number(nodata)}]
        lean.add_asset(
            band.name, pystac.Asset(source.href, media_type=source.media_type, roles=["data"], extra_fields=fields)
        )
    return lean


def _json_number(value: Any) -> Any:
    return "nan" if isinstance(value, float) and math.isnan(value) else value


def _resampling(band: Band, sensor: Sensor, item: pystac.Item, target: float) -> str:
    if sensor.static:
        # Slopes are derived from it: bilinear facets would show in every one of them.
        return "cubic"
    shrink = target / _native_resolution(item, band)
    if band.categorical:
        return "mode" if shrink > 1.5 else "nearest"
    return "average" if shrink > 1.5 else "bilinear"


def _native_resolution(item: pystac.Item, band: Band) -> float:
    asset = item.assets.get(band.name)
    transform = (asset.extra_fields.get("proj:transform") if asset else None) or item.properties.get("proj:transform")
    if not transform:
        return 10.0
    step = abs(float(transform[0]))
    # A degree of longitude shrinks with latitude; 111.32 km is its length at the equator.
    latitude = (item.bbox[1] + item.bbox[3]) / 2.0 if item.bbox else 0.0
    return step * 111_320.0 * math.cos(math.radians(latitude)) if step < 0.1 else step
