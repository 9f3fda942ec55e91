"""Anywhere on Earth: cubes of simulated places hold the right pixels, checked by position against the files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pystac
import pytest
import rasterio
import xarray as xr
from conftest import FULL
from pyproj import Transformer

from glaciercube.catalog import Scenes, find
from glaciercube.cube import compose, load
from glaciercube.region import Region
from glaciercube.simulate.stac import write_catalog, write_truth
from glaciercube.simulate.world import World, WorldOptions, simulate_world

Array = npt.NDArray[np.float64]
SIZE, DATES = (128, 3) if FULL else (48, 2)

PLACES: dict[str, dict[str, Any]] = {
    "Longyearbyen": {"longitude": 15.64, "latitude": 78.22},
    "180 E": {"longitude": 180.0, "latitude": 68.5},
    "84.5 N": {"longitude": -35.0, "latitude": 84.5},
    "two zones": {"longitude": 12.0, "latitude": 46.9, "two_zones": True},
    "Andes": {"longitude": -70.11, "latitude": -32.65},
}
CRS = {
    "Longyearbyen": "EPSG:32633",
    "180 E": "EPSG:32601",
    "84.5 N": "EPSG:32661",
    "two zones": "EPSG:32633",
    "Andes": "EPSG:32719",
}


@dataclass(frozen=True)
class Place:
    """A simulated place, what was found of it and its cube."""

    name: str
    world: World
    catalog: Path
    scenes: Scenes
    tree: xr.DataTree


@pytest.fixture(scope="module", params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Place:
    name = str(request.param)
    # 10 m: Sentinel-2's own grid, on which a pixel of the cube must be the stored one.
    options = WorldOptions(
        seed=44, size=SIZE, resolution=10.0, years=(2022,), dates_per_year=DATES, cloud=0.1, **PLACES[name]
    )
    world = simulate_world(options)
    catalog = write_catalog(world, tmp_path_factory.mktemp("place"))
    collections = {child.id for child in pystac.Catalog.from_file(str(catalog)).get_children()}
    sensors = ["sentinel-1", "dem"] + (["sentinel-2"] if "sentinel-2-l2a" in collections else [])
    scenes = find(catalog, world.region, "2022", sensors)
    return Place(name, world, catalog, scenes, load(scenes, world.region).compute())


def points(region: Region, count: int = 400) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Array, Array]:
    """Pixels of a grid, corners among them: row, column, and the longitude and latitude of their centres."""
    height, width = region.geobox.shape
    rng = np.random.default_rng(0)
    rows = np.concatenate([[0, 0, height - 1, height - 1], rng.integers(0, height, count)])
    columns = np.concatenate([[0, width - 1, 0, width - 1], rng.integers(0, width, count)])
    a = region.geobox.affine
    x, y = a.c + a.a * (columns + 0.5), a.f + a.e * (rows + 0.5)
    longitude, latitude = Transformer.from_crs(str(region.geobox.crs), "EPSG:4326", always_xy=True).transform(x, y)
    return rows, columns, longitude, latitude


def position(source: rasterio.DatasetReader, longitude: Array, latitude: Array) -> tuple[Array, Array]:
    """Where points lie in a file, as fractions of its rows and columns from the corner."""
    x, y = Transformer.from_crs("EPSG:4326", source.crs, always_xy=True).transform(longitude, latitude)
    column, row = (
        (~source.transform).a * (np.asarray(x) - source.transform.c),
        (~source.transform).e * (np.asarray(y) - source.transform.f),
    )
    return row, column


def physical(stored: Array, item: pystac.Item) -> Array:
    """Reflectance by the products' own rule, NaN where nothing was stored."""
    offset = 0.1 if float(item.properties["s2:processing_baseline"]) >= 4 else 0.0
    return np.where(stored == 0, np.nan, stored * 1e-4 - offset)


def layers(place: Place, sensor: str) -> Iterator[tuple[pystac.Item, np.datetime64, str]]:
    """Scenes of a sensor with the label of their observation."""
    table = place.scenes.of(sensor).table
    for text, time in zip(table["item"], table["time"], strict=True):
        item = pystac.Item.from_dict(json.loads(text), migrate=False)
        yield item, np.datetime64(time), str(item.id)


def test_the_grid_is_the_zones_own_and_holds_the_place(place: Place) -> None:
    region, options = place.world.region, place.world.options
    assert str(region.geobox.crs) == CRS[place.name]
    west, south, east, north = region.bbox
    assert south < options.latitude < north
    assert (options.longitude - west) % 360 < (east - west) % 360 < 1
    assert (west > east) == (place.name == "180 E")


def test_every_scene_that_shows_the_place_is_found(place: Place) -> None:
    published = {item.id for item in pystac.Catalog.from_file(str(place.catalog)).get_items(recursive=True)}
    found, left_out = set(place.scenes.table["id"]), set(place.scenes.left_out["id"])
    # The level-1 scenes were not asked for; nothing else may be missing.
    assert {name for name in published - found - left_out if "L1C" not in name} == set()
    assert ("sentinel-2" in place.scenes.sensors) == (place.name != "84.5 N")


def test_optical_pixels_are_those_stored_at_their_position(place: Place) -> None:
    if place.name == "84.5 N":
        # MGRS has no squares there, and Sentinel-2 is not published.
        assert "sentinel2" not in place.tree.children
        return
    rows, columns, longitude, latitude = points(place.world.region)
    cube = place.tree["sentinel2"].to_dataset()
    zones: dict[str, int] = {}
    checked = np.zeros((cube.sizes["time"], rows.size), dtype=bool)
    seen = checked.copy()
    for item, time, name in layers(place, "sentinel-2"):
        layer = int(np.flatnonzero(cube["time"].to_numpy() == time)[0])
        with rasterio.open(item.assets["B04"].href) as source:
            row, column = position(source, longitude, latitude)
            pixels = physical(source.read(1).astype(float), item)
            held = (row >= 0) & (row < source.height) & (column >= 0) & (column < source.width)
            native = str(source.crs) == CRS[place.name]
        found = cube["red"].to_numpy()[layer, rows, columns]
        if native:
            # Aligned: to the hundredth of a pixel in the middle of a stored one.
            assert abs(row[held] % 1 - 0.5).max() < 0.01, name
            wanted = np.full(rows.size, np.nan)
            wanted[held] = pixels[np.floor(row[held]).astype(int), np.floor(column[held]).astype(int)]
            same = np.isclose(found, wanted, rtol=0, atol=1e-6)
        else:
            low, high = around(pixels, row, column)
            same = (found >= low - 1e-6) & (found <= high + 1e-6)
            wanted = (low + high) / 2
        seen[layer] |= np.isfinite(wanted)
        checked[layer] |= same
        zones[str(item.id)[-22:-20]] = zones.get(str(item.id)[-22:-20], 0) + int((same & np.isfinite(wanted)).sum())
    found = cube["red"].to_numpy()[:, rows, columns]
    # Every pixel of the cube is that of a scene at its position, and is there exactly where one is.
    assert (checked | np.isnan(found)).all()
    assert (np.isfinite(found) == seen).mean() > 0.995
    assert np.isfinite(found).mean() > 0.7
    if place.name == "two zones":
        assert {item.id.split("_T")[1][:2] for item, _, _ in layers(place, "sentinel-2")} == {"32", "33"}


def around(pixels: Array, row: Array, column: Array) -> tuple[Array, Array]:
    """Least and greatest of the stored pixels about each point: between them lies whatever is interpolated.

    GDAL's warp places points to an eighth of a pixel (its default tolerance), so that the four may be the next four.
    """
    corners = []
    for down in (-0.625, -0.375, 0.375, 0.625):
        for right in (-0.625, -0.375, 0.375, 0.625):
            r, c = np.floor(row + down).astype(int), np.floor(column + right).astype(int)
            held = (r >= 0) & (r < pixels.shape[0]) & (c >= 0) & (c < pixels.shape[1])
            value = np.full(row.shape, np.nan)
            value[held] = pixels[r[held], c[held]]
            corners.append(value)
    known = np.isfinite(corners).any(axis=0)
    low, high = (
        np.where(np.isnan(corners), np.inf, corners).min(0),
        np.where(np.isnan(corners), -np.inf, corners).max(0),
    )
    return np.where(known, low, np.nan), np.where(known, high, np.nan)


def test_radar_pixels_are_those_stored_at_their_position(place: Place) -> None:
    rows, columns, longitude, latitude = points(place.world.region)
    cube = place.tree["sentinel1"].to_dataset()
    for item, time, name in layers(place, "sentinel-1"):
        layer = int(np.flatnonzero(cube["time"].to_numpy() == time)[0])
        with rasterio.open(item.assets["vv"].href) as source:
            row, column = position(source, longitude, latitude)
            stored = source.read(1)[np.floor(row).astype(int), np.floor(column).astype(int)]
        assert abs(row % 1 - 0.5).max() < 0.01, name
        found = cube["vv"].to_numpy()[layer, rows, columns]
        np.testing.assert_array_equal(np.isfinite(found), stored != -32768, err_msg=name)
        np.testing.assert_allclose(found, np.where(stored == -32768, np.nan, stored), rtol=1e-6, err_msg=name)


def test_elevation_is_the_stored_samples_convolved_at_its_position(place: Place) -> None:
    rows, columns, longitude, latitude = points(place.world.region)
    terrain = place.tree["terrain"].to_dataset()
    elevation = terrain["elevation"].to_numpy()
    wanted = np.full(rows.size, np.nan)
    for item, _, _ in layers(place, "dem"):
        with rasterio.open(item.assets["data"].href) as source:
            row, column = position(source, longitude, latitude)
            # A tile beside the antimeridian is told by its own longitudes.
            column = np.mod(column, 360 * source.width)
            inside = (row > 2) & (row < source.height - 2) & (column > 2) & (column < source.width - 2)
            wanted[inside] = convolved(source.read(1).astype(float), row[inside], column[inside])
    within = np.isfinite(wanted)
    assert within.mean() > 0.7
    np.testing.assert_allclose(elevation[rows, columns][within], wanted[within], rtol=0, atol=0.01)
    assert (terrain["dem_flags"] == 1).all()
    assert terrain["elevation"].notnull().all()


def convolved(pixels: Array, row: Array, column: Array) -> Array:
    """Keys' cubic convolution, from the definition of its kernel."""
    total = np.zeros(row.shape)
    for down in range(-1, 3):
        for right in range(-1, 3):
            r, c = np.floor(row - 0.5).astype(int) + down, np.floor(column - 0.5).astype(int) + right
            total += pixels[r, c] * kernel(row - 0.5 - r) * kernel(column - 0.5 - c)
    return total


def kernel(distance: Array) -> Array:
    x = abs(distance)
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def test_places_compose_with_the_sun_and_north_in_their_places(place: Place) -> None:
    cube = compose(place.tree)
    assert {"vv_db", "slope", "elevation"} <= set(cube.data_vars)
    options = place.world.options
    # Local solar time of Sentinel-2's passes is in the morning, wherever the place.
    if "sentinel2" in place.tree.children:
        hours = [(t - t.normalize()).total_seconds() / 3600 for t in place.scenes.of("sentinel-2").table["datetime"]]
        local = np.mod(np.array(hours) + options.longitude / 15, 24)
        assert ((local > 9) & (local < 15)).all()
    # The day of the passes is the Sun's there, not Greenwich's: 20 January to 20 March in the south, else summer.
    days = sorted(set(place.scenes.of(place.scenes.sensors[0]).table["solar_day"]))
    first, last = ("01-15", "03-25") if options.latitude < 0 else ("07-15", "09-25")
    assert all(first <= day[5:] <= last for day in place.scenes.of("sentinel-1").table["solar_day"]), days


def test_outlines_on_disk_make_the_same_grid_again(place: Place, tmp_path: Path) -> None:
    assert len(place.world.outlines) > 0
    outlines, _ = write_truth(place.world, tmp_path)
    again = Region.from_outlines(outlines, resolution=10, buffer=0)
    assert str(again.geobox.crs) == CRS[place.name]
    inner, outer = again.geobox.boundingbox, place.world.region.geobox.boundingbox
    assert outer.left - 10 <= inner.left <= inner.right <= outer.right + 10
    assert outer.bottom - 10 <= inner.bottom <= inner.top <= outer.top + 10
