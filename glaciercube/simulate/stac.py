"""A world on disk: cloud-optimised GeoTIFFs and the static STAC catalogue that lists them."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import shapely
import xarray as xr
from odc.geo.geobox import GeoBox
from tqdm import tqdm

from glaciercube.errors import CatalogError
from glaciercube.simulate.clouds import SCL, add_clouds, cloud_percentages, mistake_ice
from glaciercube.simulate.cog import write_cog
from glaciercube.simulate.dem import DemTile, dem_tiles, stale_dem
from glaciercube.simulate.granules import Granule, granules
from glaciercube.simulate.items import (
    PERCENTAGES,
    TITLES,
    Json,
    collection,
    dem_item,
    level1_item,
    level2_item,
    radar_item,
)
from glaciercube.simulate.optical import render_optical
from glaciercube.simulate.passes import OpticalPass, RadarPass, optical_passes, radar_passes
from glaciercube.simulate.radar import render_radar
from glaciercube.simulate.spectra import Level
from glaciercube.simulate.world import World

if TYPE_CHECKING:
    import geopandas as gpd

__all__ = ["write_catalog", "write_radar_scene", "write_truth"]

WORKERS = 2  # rendering is bound by the processor; more threads only hold more memory
QUANTIFICATION = 10000  # DN of reflectance 1 (Sentinel-2 products specification)
REPROCESSED = "05.11"  # baseline of the duplicate where the first baseline has an offset, else 05.00
BANDS: Final = {
    "B02": ("blue", 10),
    "B03": ("green", 10),
    "B04": ("red", 10),
    "B08": ("nir", 10),
    "B11": ("swir16", 20),
    "B12": ("swir22", 20),
}
SHARES: Final = {
    "s2:high_proba_clouds_percentage": "cloud_high",
    "s2:medium_proba_clouds_percentage": "cloud_medium",
    "s2:thin_cirrus_percentage": "thin_cirrus",
    "s2:snow_ice_percentage": "snow",
    "s2:water_percentage": "water",
    "s2:cloud_shadow_percentage": "cloud_shadow",
}


def write_catalog(world: World, folder: Path, *, progress: bool = False) -> Path:
    """Write a world as its satellites see it.

    Sentinel-2 L2A: each overpass in two granules that overlap, the first one twice (reprocessed with a newer
    baseline); with `WorldOptions.two_zones` in two UTM zones, and none beyond 84 N and 80 S. Sentinel-2 L1C: the first
    and the last overpass. Sentinel-1 RTC: one scene near each of Sentinel-2's. Elevation: every tile of a degree that
    the world touches, in full extent.

    Parameters
    ----------
    world : World
        From `simulate_world`.
    folder : pathlib.Path
        Where to write; made if missing. Files of the same names are replaced.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    pathlib.Path
        ``folder / "catalog.json"``.

    Raises
    ------
    CatalogError
        If the folder cannot be written.
    """
    folder = Path(folder)
    items: dict[str, list[Json]] = {name: [] for name in TITLES}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for item in _run(list(_tasks(world, folder)), progress=progress):
            items[item["collection"]].append(item)
        return _write_json(world, folder, items)
    except OSError as error:
        raise CatalogError(
            f"cannot write the simulated catalogue to {folder} ({error})",
            "free some space there or choose another folder",
        ) from error


def write_truth(world: World, folder: Path) -> tuple[Path, Path]:
    """Write the outlines of the first year (GeoJSON) and the true area per outline and year (CSV).

    Parameters
    ----------
    world : World
        From `simulate_world`.
    folder : pathlib.Path
        Where to write; made if missing.

    Returns
    -------
    outlines, areas : pathlib.Path
        ``folder / "outlines.geojson"`` and ``folder / "true_area.csv"``.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    outlines, areas = folder / "outlines.geojson", folder / "true_area.csv"
    _eastward(world.outlines.to_crs("EPSG:4326")).to_file(outlines, driver="GeoJSON")
    world.true_area().to_csv(areas, index=False)
    return outlines, areas


def _eastward(outlines: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """Outlines in degrees that cross the antimeridian go on beyond 180 there, and do not turn around the Earth."""
    west, _, east, _ = outlines.total_bounds
    if not east - west > 180:
        return outlines
    turned = outlines.geometry.map(lambda shape: shapely.transform(shape, _turned))
    return outlines.set_geometry(turned, crs=outlines.crs)


def _turned(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.stack([points[:, 0] % 360.0, points[:, 1]], axis=1)


def _run(tasks: Sequence[Callable[[], list[Json]]], *, progress: bool) -> Iterator[Json]:
    """Run tasks in threads; the first that fails ends it, and those not begun never are."""
    pool = ThreadPoolExecutor(WORKERS)
    try:
        futures = [pool.submit(task) for task in tasks]
        for future in tqdm(as_completed(futures), "simulating", len(futures), disable=not progress, unit="scene"):
            yield from future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _tasks(world: World, folder: Path) -> Iterator[Callable[[], list[Json]]]:
    views, cut = optical_passes(world.options), granules(world)
    if cut:
        for index, view in enumerate(views):
            yield partial(_write_level2, world, view, cut, folder, again=index == 0)
        for view in {views[0].when: views[0], views[-1].when: views[-1]}.values():
            yield partial(_write_level1, world, view, cut, folder)
    for radar in radar_passes(world.options):
        yield partial(_write_radar, world, radar, folder)
    noise = np.random.default_rng([world.options.seed, 5])
    for tile in dem_tiles(stale_dem(world.landscape, world.options.dem_year, noise), world.ground):
        yield partial(_write_dem, tile, folder)


def _write_level2(world: World, view: OpticalPass, cut: Sequence[Granule], folder: Path, *, again: bool) -> list[Json]:
    """Render one overpass and write its granules; the western one twice if `again`."""
    scene, missing = _render(world, view, "boa"), _beyond_swath(world, view)
    generated = view.when + dt.timedelta(hours=9)
    items = [_write_granule(scene, missing, view, granule, folder, generated) for granule in cut]
    if again:
        newer = replace(view, baseline=REPROCESSED if view.offset else "05.00")
        rng = np.random.default_rng([view.seed, 6])
        for name, _ in BANDS.values():
            noise = rng.normal(0, 0.001, scene[name].shape).astype(np.float32)
            scene[name] = scene[name] * np.float32(rng.normal(1, 0.004)) + noise
        items.append(_write_granule(scene, missing, newer, cut[0], folder, generated + dt.timedelta(days=1200)))
    return items


def _write_granule(
    scene: xr.Dataset,
    missing: npt.NDArray[np.bool_],
    view: OpticalPass,
    granule: Granule,
    folder: Path,
    generated: dt.datetime,
) -> Json:
    scl = np.where(_half(granule.hole(missing)), 0, granule.cut(scene["scl"].to_numpy())[::2, ::2]).astype(np.uint8)
    classes = {"SCL": scl}
    for key in PERCENTAGES:
        if f"{key}_probability" in scene:
            percent = granule.cut(scene[f"{key}_probability"].to_numpy())[::2, ::2]
            classes[key] = np.where(scl == 0, 0, percent).astype(np.uint8)
    grids = {key: grid for key, grid in _by_asset(granule).items() if key in classes or key not in PERCENTAGES}
    item = level2_item(view, granule.tile, grids, _shares(scl), generated=generated)
    home = folder / item["collection"] / item["id"]
    pixels: dict[str, npt.NDArray[Any]] = {**_digital_numbers(scene, missing, view.offset, granule), **classes}
    for key, asset in item["assets"].items():
        grid = grids[key]
        write_cog(
            home / asset["href"], pixels[key], grid.transform, str(grid.crs), nodata=0, categorical=key in classes
        )
    return item


def _write_level1(world: World, view: OpticalPass, cut: Sequence[Granule], folder: Path) -> list[Json]:
    """Render one overpass at the top of the atmosphere and write its granules."""
    scene, missing = _render(world, view, "toa"), _beyond_swath(world, view)
    items = []
    for granule in cut:
        cover = float(100 * granule.cut(scene["cloud"].to_numpy()).mean())
        generated = view.when + dt.timedelta(hours=4)
        item = level1_item(view, granule.tile, _by_asset(granule), cloud_cover=cover, generated=generated)
        home = folder / item["collection"] / item["id"]
        for key, band in _digital_numbers(scene, missing, view.offset, granule).items():
            asset, grid = item["assets"][BANDS[key][0]], _by_asset(granule)[key]
            write_cog(home / asset["href"], band, grid.transform, str(grid.crs), nodata=0)
        items.append(item)
    return items


def _write_radar(world: World, view: RadarPass, folder: Path) -> list[Json]:
    """Render and write one radar scene."""
    surface = world.landscape.surface(view.day)
    scene = render_radar(surface, orbit=view.direction, seed=view.seed, ground_seed=world.options.seed)
    return [write_radar_scene(view, world.ground, {band: scene[band].to_numpy() for band in ("vv", "vh")}, folder)]


def write_radar_scene(
    view: RadarPass, grid: GeoBox, power: Mapping[str, npt.NDArray[np.float32]], folder: Path
) -> Json:
    """Write one Sentinel-1 RTC scene and word its item.

    Parameters
    ----------
    view : RadarPass
        When, from where, in which polarisations.
    grid : GeoBox
        Grid of the pixels.
    power : mapping of str to array (y, x)
        Linear power of each polarisation of `view`, NaN where there is no data.
    folder : pathlib.Path
        The catalogue's.
    """
    item = radar_item(view, grid)
    for band, asset in item["assets"].items():
        stored = np.where(np.isnan(power[band]), np.float32(-32768), power[band])
        path = folder / item["collection"] / item["id"] / asset["href"]
        write_cog(path, stored, grid.transform, str(grid.crs), nodata=-32768)
    return item


def _write_dem(tile: DemTile, folder: Path) -> list[Json]:
    item = dem_item(tile)
    path = folder / item["collection"] / item["id"] / item["assets"]["data"]["href"]
    write_cog(path, tile.elevation, tile.transform, "EPSG:4326")
    return [item]


def _render(world: World, view: OpticalPass, level: Level) -> xr.Dataset:
    """Render a cloudy Sentinel-2 scene of the whole ground; both levels see the same clouds."""
    sun = {"sun_azimuth": view.sun_azimuth, "sun_elevation": view.sun_elevation}
    surface = world.landscape.surface(view.day)
    clear = render_optical(
        surface,
        sun_azimuth=view.sun_azimuth,
        sun_elevation=view.sun_elevation,
        level=level,
        seed=view.seed,
        ground_seed=world.options.seed,
    )
    scene = add_clouds(clear, cover=view.cover, **sun, level=level, seed=view.seed)
    options = world.options
    if options.false_cloud:
        ice = world.landscape.ice(options.years[0])
        wrong = mistake_ice(scene["scl"].to_numpy(), ice, options.false_cloud, options.seed, world.ground.resolution.x)
        scene = scene.assign(scl=(("y", "x"), wrong))
    if options.percentages:
        found = cloud_percentages(scene, view.seed)
        scene = scene.assign({name: (("y", "x"), value) for name, value in found.items()})
    return scene


def _digital_numbers(
    scene: xr.Dataset, missing: npt.NDArray[np.bool_], offset: float, granule: Granule
) -> dict[str, npt.NDArray[np.uint16]]:
    """Reflectance to the numbers that Sentinel-2 products hold: uint16, 0 no data, by band."""
    numbers = {}
    for key, (name, size) in BANDS.items():
        reflectance, hole = granule.cut(scene[name].to_numpy()), granule.hole(missing)
        if size == 20:
            rows, columns = reflectance.shape
            reflectance = reflectance.reshape(rows // 2, 2, columns // 2, 2).mean(axis=(1, 3))
            hole = _half(hole)
        stored = np.clip(np.rint((reflectance - offset) * QUANTIFICATION), 1, 65535)
        numbers[key] = np.where(hole, 0, stored).astype(np.uint16)
    return numbers


def _beyond_swath(world: World, view: OpticalPass) -> npt.NDArray[np.bool_]:
    """Ground that the swath misses, in a corner cut along the orbit: (y, x) bool, whole pixels of 20 m."""
    rows, columns = (n // 2 for n in world.ground.shape)
    y, x = np.mgrid[:rows, :columns]
    across = (x + 0.25 * (rows - y)) * (1 if view.seed % 2 else -1)
    hole = across < np.quantile(across, view.missing) if view.missing else np.zeros((rows, columns), dtype=bool)
    return np.asarray(hole.repeat(2, axis=0).repeat(2, axis=1), dtype=bool)


def _half(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Pixels of 20 m in which any of 10 m is True: (y, x) bool."""
    rows, columns = mask.shape
    return np.asarray(mask.reshape(rows // 2, 2, columns // 2, 2).any(axis=(1, 3)))


def _by_asset(granule: Granule) -> dict[str, GeoBox]:
    """Grid of each asset."""
    return {
        **{band: granule.grids[size] for band, (_, size) in BANDS.items()},
        **dict.fromkeys(("SCL", *PERCENTAGES), granule.grids[20]),
    }


def _shares(scl: npt.NDArray[np.uint8]) -> dict[str, float]:
    """Percentages of the classes among pixels with data."""
    counts = np.bincount(scl.ravel(), minlength=12)
    seen = max(1, int(counts[1:].sum()))
    shares = {name: round(100 * float(counts[SCL[kind]]) / seen, 6) for name, kind in SHARES.items()}
    clouds = ("cloud_high", "cloud_medium", "thin_cirrus")
    cover = 100 * float(sum(counts[SCL[kind]] for kind in clouds)) / seen
    nodata = 100 * float(counts[0]) / scl.size
    return {"eo:cloud_cover": round(cover, 6), **shares, "s2:nodata_pixel_percentage": round(nodata, 6)}


def _write_json(world: World, folder: Path, items: dict[str, list[Json]]) -> Path:
    """Write items, collections, and last the catalogue: until it is there, nothing is."""
    items = {name: members for name, members in items.items() if members}
    for name, members in items.items():
        members.sort(key=lambda item: (item["properties"]["datetime"], item["id"]))
        for item in members:
            (folder / name / item["id"] / f"{item['id']}.json").write_text(json.dumps(item, indent=1))
        (folder / name / "collection.json").write_text(json.dumps(collection(name, members, world.options), indent=1))
    catalog = {
        "type": "Catalog",
        "id": f"glaciercube-simulated-{world.options.seed}",
        "stac_version": "1.0.0",
        "description": "A simulated glacierised landscape, as Sentinel-1 and -2 and an elevation model show it.",
        "links": [
            {"rel": "root", "href": "./catalog.json", "type": "application/json"},
            *({"rel": "child", "href": f"./{name}/collection.json", "type": "application/json"} for name in items),
        ],
    }
    path = folder / "catalog.json"
    path.write_text(json.dumps(catalog, indent=1))
    return path
