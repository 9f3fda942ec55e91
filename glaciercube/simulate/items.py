"""STAC items and collections as public providers word them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any, Final

import shapely.geometry
from affine import Affine
from odc.geo.geobox import GeoBox
from odc.geo.geom import Geometry

from glaciercube.region import geographic_bounds, geographic_footprint, split_bounds
from glaciercube.simulate.dem import DemTile
from glaciercube.simulate.passes import OpticalPass, RadarPass
from glaciercube.simulate.world import WorldOptions

__all__ = ["COG_TYPE", "Json", "collection", "dem_item", "level1_item", "level2_item", "radar_item"]

Json = dict[str, Any]
COG_TYPE: Final = "image/tiff; application=geotiff; profile=cloud-optimized"
_EXTENSIONS = "https://stac-extensions.github.io/{}/v{}/schema.json"

# Name, common name, centre and width in micrometres (Sentinel-2 user handbook).
OPTICAL: Final = {
    "B02": ("blue", 0.49, 0.098),
    "B03": ("green", 0.56, 0.045),
    "B04": ("red", 0.665, 0.038),
    "B08": ("nir", 0.842, 0.145),
    "B11": ("swir16", 1.61, 0.143),
    "B12": ("swir22", 2.19, 0.242),
}
# Asset and file name of the processor's probabilities.
PERCENTAGES: Final = {"cloud": "CLD", "snow": "SNW"}
# Product, its resolution class, and what the item says of the instrument (Sentinel-1 product specification).
RADAR_MODES: Final[dict[str, dict[str, Any]]] = {
    "IW": {
        "product": "GRDH",
        "resolution": "high",
        "sar": {
            "sar:looks_range": 5,
            "sar:looks_azimuth": 1,
            "sar:looks_equivalent_number": 4.4,
            "sar:resolution_range": 20,
            "sar:resolution_azimuth": 22,
            "sar:pixel_spacing_range": 10,
            "sar:pixel_spacing_azimuth": 10,
        },
    },
    "EW": {
        "product": "GRDM",
        "resolution": "medium",
        "sar": {
            "sar:looks_range": 6,
            "sar:looks_azimuth": 2,
            "sar:looks_equivalent_number": 10.7,
            "sar:resolution_range": 93,
            "sar:resolution_azimuth": 87,
            "sar:pixel_spacing_range": 40,
            "sar:pixel_spacing_azimuth": 40,
        },
    },
}
TITLES: Final = {
    "sentinel-2-l2a": "Sentinel-2 surface reflectance",
    "sentinel-2-l1c": "Sentinel-2 top-of-atmosphere reflectance",
    "sentinel-1-rtc": "Sentinel-1 terrain-corrected gamma nought, linear power",
    "cop-dem-glo-30": "Copernicus DEM GLO-30",
}


def level2_item(
    view: OpticalPass, tile: str, grids: Mapping[str, GeoBox], shares: Mapping[str, float], *, generated: dt.datetime
) -> Json:
    """Word a Sentinel-2 L2A granule as Planetary Computer does.

    Parameters
    ----------
    view : OpticalPass
        The overpass.
    tile : str
        MGRS tile such as ``"06VVN"``.
    grids : mapping of str to GeoBox
        Grid of each asset; those of `PERCENTAGES` are optional.
    shares : mapping of str to float
        Percentages of the scene classification by property.
    generated : datetime.datetime
        When the processor ran, UTC.
    """
    sensed, done = _compact(view.when), _compact(generated)
    name = f"S2{view.platform}_MSIL2A_{sensed}"
    scene = f"R{view.orbit:03d}_T{tile}_{done}"
    granule = f"A{view.absolute_orbit:06d}_T{tile}_N{view.baseline}"
    properties = {
        "datetime": _iso(view.when),
        "platform": f"Sentinel-2{view.platform}",
        "instruments": ["msi"],
        "constellation": "Sentinel 2",
        "s2:mgrs_tile": tile,
        "s2:granule_id": f"S2{view.platform}_OPER_MSI_L2A_TL_SIMU_{done}_{granule}",
        "s2:datatake_id": f"GS2{view.platform}_{sensed}_{view.absolute_orbit:06d}_N{view.baseline}",
        "s2:product_uri": f"{name}_N{view.baseline.replace('.', '')}_{scene}.SAFE",
        "s2:datastrip_id": f"S2{view.platform}_OPER_MSI_L2A_DS_SIMU_{done}_S{sensed}_N{view.baseline}",
        "s2:product_type": "S2MSI2A",
        "s2:datatake_type": "INS-NOBS",
        "s2:generation_time": _iso(generated),
        "s2:processing_baseline": view.baseline,
        "s2:mean_solar_zenith": round(90 - view.sun_elevation, 6),
        "s2:mean_solar_azimuth": round(view.sun_azimuth, 6),
        "sat:orbit_state": "descending",
        "sat:relative_orbit": view.orbit,
        **shares,
    }
    assets = {band: _optical_asset(band, grids[band], f"T{tile}_{sensed}_{band}_") for band in OPTICAL}
    assets["SCL"] = _asset(f"./T{tile}_{sensed}_SCL_20m.tif", "Scene classification map (SCL)", grids["SCL"], gsd=20)
    for key, layer in PERCENTAGES.items():
        if key in grids:
            # Under the names of Earth Search: Planetary Computer does not publish them.
            assets[key] = _asset(f"./T{tile}_{sensed}_{layer}_20m.tif", f"{key} probabilities", grids[key], gsd=20)
    item = _item("sentinel-2-l2a", f"{name}_{scene}", grids["B02"], properties, assets, ("eo", "sat"))
    return _with_crs(item, grids["B02"], code=view.seed % 2 == 0)


def level1_item(
    view: OpticalPass, tile: str, grids: Mapping[str, GeoBox], *, cloud_cover: float, generated: dt.datetime
) -> Json:
    """Word a Sentinel-2 L1C granule as Earth Search does; parameters as of `level2_item`."""
    sensed, done = _compact(view.when), _compact(generated)
    name = f"S2{view.platform}_{tile}_{view.when:%Y%m%d}_0_L1C"
    baseline = view.baseline.replace(".", "")
    properties = {
        "datetime": _iso(view.when),
        "created": _iso(generated),
        "platform": f"sentinel-2{view.platform.lower()}",
        "constellation": "sentinel-2",
        "instruments": ["msi"],
        "eo:cloud_cover": cloud_cover,
        "grid:code": f"MGRS-{tile}",
        "view:sun_azimuth": round(view.sun_azimuth, 6),
        "view:sun_elevation": round(view.sun_elevation, 6),
        "s2:product_type": "S2MSI1C",
        "s2:processing_baseline": view.baseline,
        "s2:product_uri": f"S2{view.platform}_MSIL1C_{sensed}_N{baseline}_R{view.orbit:03d}_T{tile}_{done}.SAFE",
        "s2:generation_time": _iso(generated),
        "s2:datatake_id": f"GS2{view.platform}_{sensed}_{view.absolute_orbit:06d}_N{view.baseline}",
        "s2:datatake_type": "INS-NOBS",
        "s2:datastrip_id": f"S2{view.platform}_OPER_MSI_L1C_DS_SIMU_{done}_S{sensed}_N{view.baseline}",
        "s2:sequence": "0",
    }
    assets = {}
    for band, (common, *_) in OPTICAL.items():
        asset = _optical_asset(band, grids[band], "")
        asset["href"] = f"./{band}.tif"
        asset["roles"] = ["data", "reflectance"]
        scale = {"scale": 0.0001, "offset": view.offset}
        asset["raster:bands"] = [{"nodata": 0, "data_type": "uint16", "spatial_resolution": asset["gsd"], **scale}]
        assets[common] = asset
    item = _item("sentinel-2-l1c", name, grids["B02"], properties, assets, ("eo", "view", "grid", "raster"))
    return _with_crs(item, grids["B02"], code=False)


def radar_item(view: RadarPass, grid: GeoBox) -> Json:
    """Word a Sentinel-1 RTC scene as Planetary Computer does."""
    start, end = view.when - dt.timedelta(seconds=12), view.when + dt.timedelta(seconds=13)
    span = f"{_compact(start)}_{_compact(end)}"
    mode = RADAR_MODES[view.mode]
    pair = ("D" if len(view.polarizations) > 1 else "S") + view.polarizations[0][0].upper()
    product = f"S1{view.platform}_{view.mode}_{mode['product']}_1S{pair}"
    name = f"{product}_{span}_{view.absolute_orbit:06d}_{view.seed % 0xFFFFFF:06X}_rtc"
    slices = {"s1:slice_number": view.slice_number} if view.slice_number else {}
    properties = {
        "datetime": _iso(view.when),
        "start_datetime": _iso(start),
        "end_datetime": _iso(end),
        "platform": f"SENTINEL-1{view.platform}",
        "constellation": "Sentinel-1",
        "s1:resolution": mode["resolution"],
        "s1:processing_level": "1",
        **slices,
        "sar:product_type": "GRD",
        "sar:instrument_mode": view.mode,
        "sar:frequency_band": "C",
        "sar:center_frequency": 5.405,
        "sar:polarizations": [name.upper() for name in view.polarizations],
        **mode["sar"],
        "sar:observation_direction": "right",
        "sat:orbit_state": view.direction,
        "sat:relative_orbit": view.orbit,
        "sat:absolute_orbit": view.absolute_orbit,
        **_grid_fields(grid),
    }
    assets = {band: _radar_asset(view.mode, band, grid) for band in view.polarizations}
    item = _item("sentinel-1-rtc", name, grid, properties, assets, ("sar", "sat", "raster"))
    return _with_crs(item, grid, code=view.direction == "descending")


def _radar_asset(mode: str, band: str, grid: GeoBox) -> Json:
    sent, received = ({"v": "vertical", "h": "horizontal"}[letter] for letter in band)
    return {
        "href": f"./{mode.lower()}-{band}.rtc.tiff",
        "type": COG_TYPE,
        "roles": ["data"],
        "title": f"{band.upper()}: {sent} transmit, {received} receive",
        "raster:bands": [{"nodata": -32768, "data_type": "float32", "spatial_resolution": float(grid.resolution.x)}],
    }


def dem_item(tile: DemTile) -> Json:
    """Word a tile of the elevation model as Planetary Computer does, which does not tell the year of the survey."""
    rows, columns = tile.elevation.shape
    grid = GeoBox((rows, columns), tile.transform, "EPSG:4326")
    properties = {"gsd": 30, "datetime": "2021-04-22T00:00:00Z", "platform": "TanDEM-X", **_grid_fields(grid)}
    del properties["proj:bbox"]
    title = tile.name.removeprefix("Copernicus_DSM_COG_10_").removesuffix("_DEM")
    asset = {"href": f"./{tile.name}.tif", "title": title, "type": COG_TYPE, "roles": ["data"]}
    return _with_crs(_item("cop-dem-glo-30", tile.name, grid, properties, {"data": asset}, ()), grid, code=False)


def collection(name: str, items: Sequence[Json], options: WorldOptions) -> Json:
    """Word a collection of simulated items, with links to them."""
    boxes = [part for item in items for part in split_bounds(tuple(item["bbox"]))]
    times = sorted(item["properties"]["datetime"] for item in items)
    extent = [min(b[0] for b in boxes), min(b[1] for b in boxes), max(b[2] for b in boxes), max(b[3] for b in boxes)]
    links = [
        {"rel": "root", "href": "../catalog.json", "type": "application/json"},
        {"rel": "parent", "href": "../catalog.json", "type": "application/json"},
        *({"rel": "item", "href": f"./{i['id']}/{i['id']}.json", "type": "application/geo+json"} for i in items),
    ]
    return {
        "type": "Collection",
        "id": name,
        "stac_version": "1.0.0",
        "title": f"{TITLES[name]} (simulated)",
        "description": f"Simulated by glaciercube, seed {options.seed}: no satellite took these images.",
        "license": "CC0-1.0",
        "extent": {"spatial": {"bbox": [extent]}, "temporal": {"interval": [[times[0], times[-1]]]}},
        "links": links,
    }


def _item(parent: str, name: str, grid: GeoBox, properties: Json, assets: Json, extensions: Sequence[str]) -> Json:
    versions = {"sentinel-2": "1.0.0", "raster": "1.1.0"}
    geometry, box = _footprint(grid)
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": [_EXTENSIONS.format(name, versions.get(name, "1.0.0")) for name in extensions],
        "id": name,
        "collection": parent,
        "geometry": geometry,
        "bbox": box,
        "properties": properties,
        "links": [
            {"rel": "root", "href": "../../catalog.json", "type": "application/json"},
            {"rel": "parent", "href": "../collection.json", "type": "application/json"},
            {"rel": "collection", "href": "../collection.json", "type": "application/json"},
        ],
        "assets": assets,
    }


def _footprint(grid: GeoBox) -> tuple[Json, list[float]]:
    """GeoJSON geometry and bounding box; at the antimeridian in two parts, and west exceeds east (RFC 7946)."""
    if grid.crs is not None and grid.crs.projected:
        bounds = geographic_bounds(grid)
        if bounds[0] > bounds[2]:
            return shapely.geometry.mapping(geographic_footprint(grid)), list(bounds)
    footprint: Geometry = grid.extent.to_crs("EPSG:4326", resolution=grid.resolution.x * 64)
    box = footprint.boundingbox
    geometry: Json = footprint.json
    return geometry, [box.left, box.bottom, box.right, box.top]


def _with_crs(item: Json, grid: GeoBox, *, code: bool) -> Json:
    """Name the CRS in the old spelling (`proj:epsg`) or in the new one (`proj:code`)."""
    name = str(grid.crs)
    item["properties"] |= {"proj:code": name} if code else {"proj:epsg": int(name.removeprefix("EPSG:"))}
    item["stac_extensions"].append(_EXTENSIONS.format("projection", "2.0.0" if code else "1.1.0"))
    return item


def _optical_asset(band: str, grid: GeoBox, stem: str) -> Json:
    common, centre, width = OPTICAL[band]
    gsd = round(grid.resolution.x)
    asset = _asset(f"./{stem}{band}_{gsd}m.tif" if stem else "", f"{common} - {gsd}m", grid, gsd=gsd)
    wave = {"center_wavelength": centre, "full_width_half_max": width}
    return asset | {"eo:bands": [{"name": band, "common_name": common, **wave}]}


def _asset(href: str, title: str, grid: GeoBox, *, gsd: int) -> Json:
    return {"href": href, "type": COG_TYPE, "title": title, "gsd": gsd, "roles": ["data"], **_grid_fields(grid)}


def _grid_fields(grid: GeoBox) -> Json:
    transform: Affine = grid.transform
    box = grid.boundingbox
    return {
        "proj:shape": [grid.shape[0], grid.shape[1]],
        "proj:transform": list(transform)[:6],
        "proj:bbox": [box.left, box.bottom, box.right, box.top],
    }


def _compact(when: dt.datetime) -> str:
    return f"{when:%Y%m%dT%H%M%S}"


def _iso(when: dt.datetime) -> str:
    return f"{when:%Y-%m-%dT%H:%M:%S.%fZ}"
