"""Elevation as one surface: no seams where tiles meet, sea told from gaps, slopes as GDAL computes them."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt
import pytest
import rasterio
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords
from pyproj import Transformer
from scipy import ndimage

from glaciercube.catalog import Scenes, find
from glaciercube.cube import load
from glaciercube.cube.ground import load_ground
from glaciercube.cube.native import lay_out, open_native
from glaciercube.cube.terrain import terrain_halo, terrain_variables
from glaciercube.reading import backend_odc
from glaciercube.reading.request import Request
from glaciercube.region import Region
from glaciercube.sensors import get_sensor
from glaciercube.simulate.dem import COLUMNS, DemTile
from glaciercube.simulate.items import Json, collection, dem_item
from glaciercube.simulate.world import World, WorldOptions

Array = npt.NDArray[np.float64]
Surface = Callable[[Array, Array], Array]


def hills(longitude: Array, latitude: Array) -> Array:
    """Waves of 2 to 3 km on the sphere (metres): smooth everywhere, at the poles and at the antimeridian too."""
    lon, lat = np.radians(longitude), np.radians(latitude)
    x, y, z = np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)
    k = 2 * np.pi * 6371.0
    return np.asarray(
        900
        + 120 * np.sin(k / 2.9 * x + k / 3.1 * y)
        + 90 * np.cos(k / 2.3 * y - k / 2.7 * z)
        + 60 * np.sin(k / 2.1 * z)
    )


def tile_item(south: int, west: int, date: str = "2021-04-22", name: str = "") -> Json:
    nearer = south if south >= 0 else -south - 1
    columns = next(count for least, count in COLUMNS if nearer >= least)
    a = Affine(1 / columns, 0, west - 0.5 / columns, 0, -1 / 3600, south + 1 + 0.5 / 3600)
    latitude, longitude = ("N" if south >= 0 else "S"), ("E" if west >= 0 else "W")
    full = f"Copernicus_DSM_COG_10_{latitude}{abs(south):02d}_00_{longitude}{abs(west):03d}_00_DEM{name}"
    item = dem_item(DemTile(full, a, np.broadcast_to(np.float32(0), (3600, columns))))
    item["properties"]["datetime"] = f"{date}T00:00:00Z"
    return item


def published(items: Sequence[Json], folder: Path) -> Path:
    """A catalogue of tiles that are only told of."""
    for item in items:
        path = folder / "cop-dem-glo-30" / item["id"] / f"{item['id']}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(item))
    (folder / "cop-dem-glo-30" / "collection.json").write_text(
        json.dumps(collection("cop-dem-glo-30", items, WorldOptions()))
    )
    links = [
        {"rel": "root", "href": "./catalog.json"},
        {"rel": "child", "href": "./cop-dem-glo-30/collection.json"},
    ]
    (folder / "catalog.json").write_text(
        json.dumps({"type": "Catalog", "id": "t", "stac_version": "1.0.0", "description": "tiles", "links": links})
    )
    return folder / "catalog.json"


class Drawn:
    """A backend whose rasters are a formula, on native pixels; what was asked of it is kept."""

    def __init__(self, surface: Surface, nodata: float = float("nan")) -> None:
        self.surface, self.nodata = surface, nodata
        self.asked: list[Request] = []

    def __call__(self, request: Request) -> xr.Dataset:
        self.asked.append(request)
        grid = request.geobox
        boxes = [(*item.properties["proj:transform"][:6], *item.properties["proj:shape"]) for item in request.items]
        chunks = tuple(_sizes(n, request.cell) for n in grid.shape)
        pixels = da.map_blocks(self._block, grid, boxes, chunks=chunks, dtype="f4", meta=np.empty((0, 0), "f4"))
        variable = xr.DataArray(pixels[None], dims=("time", *grid.dims), coords=xr_coords(grid))
        return xr.Dataset({"elevation": variable.assign_attrs(nodata=self.nodata)})

    def _block(self, grid: GeoBox, boxes: Any, block_info: Any = None) -> npt.NDArray[np.float32]:
        (y0, y1), (x0, x1) = block_info[None]["array-location"]
        a = grid.affine
        longitude = a.c + a.a * (np.arange(x0, x1)[None, :] + 0.5)
        latitude = a.f + a.e * (np.arange(y0, y1)[:, None] + 0.5)
        held = np.zeros((y1 - y0, x1 - x0), dtype=bool)
        for dx, _, left, _, dy, top, rows, columns in boxes:
            if left > longitude.max() or left + dx * columns < longitude.min():
                continue
            held |= (
                (longitude > left) & (longitude < left + dx * columns) & (latitude < top) & (latitude > top + dy * rows)
            )
        n = round(-a.e * 3600)
        if n > 1:  # as GDAL's mean of native pixels
            steps = (np.arange(n) + 0.5) / n - 0.5
            means = [self.surface(longitude + u * a.a, latitude + v * a.e) for u in steps for v in steps]
            return np.where(held, np.mean(means, axis=0), self.nodata).astype(np.float32)
        return np.where(held, self.surface(longitude, latitude), self.nodata).astype(np.float32)


def _sizes(length: int, step: int) -> tuple[int, ...]:
    return tuple(min(step, length - start) for start in range(0, length, step))


def square(crs: str, longitude: float, latitude: float, *, size: int = 60, resolution: float = 20.0) -> Region:
    x, y = Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform(longitude, latitude)
    half = size * resolution / 2
    left, top = (round(edge / resolution) * resolution for edge in (x - half, y + half))
    return Region("square", GeoBox((size, size), Affine(resolution, 0, left, 0, -resolution, top), crs))


def ground(scenes: Scenes, region: Region, backend: Any, cell: int = 32) -> xr.Dataset:
    return load_ground(get_sensor("dem"), scenes, region.geobox, cell, backend).compute()


def on_grid(region: Region, surface: Surface, beyond: int = 0) -> Array:
    """A formula at a grid's pixel centres."""
    grid = region.geobox.pad(beyond) if beyond else region.geobox
    a = grid.affine
    x, y = np.meshgrid(a.c + a.a * (np.arange(grid.shape[1]) + 0.5), a.f + a.e * (np.arange(grid.shape[0]) + 0.5))
    return surface(*Transformer.from_crs(str(grid.crs), "EPSG:4326", always_xy=True).transform(x, y))


def tiles_around(region: Region) -> list[Json]:
    """Every tile of a degree that a region could need."""
    found = {}
    for west, south, east, north in region.search_boxes(1000.0):
        for lat in range(math.floor(south), math.floor(north) + 1):
            for lon in range(math.floor(west), math.floor(east) + 1):
                if -90 <= lat < 90 and -180 <= lon < 180:
                    found[lat, lon] = tile_item(lat, lon)
    return list(found.values())


SEAMS = {
    **{f"{lat} N": ("UTM", 10.0, float(lat)) for lat in (50, 60, 70, 80)},
    "60 S": ("EPSG:32719", -70.0, -60.0),
    "85 N": ("EPSG:32661", 10.0, 85.0),
    "85 N, other way": ("EPSG:3413", -135.0, 85.0),
    "equator": ("EPSG:32637", 38.0, 0.0),
    "antimeridian": ("EPSG:32601", 180.0, 66.0),
    "antimeridian at 70 N": ("EPSG:32660", 180.0, 70.0),
    "north pole": ("EPSG:32661", 0.0, 90.0),
    "south pole": ("EPSG:3031", 0.0, -90.0),
    "near the pole": ("EPSG:3413", 100.0, 89.97),
}


@pytest.mark.parametrize("place", SEAMS)
def test_no_seam_shows_where_tiles_or_their_spacing_meet(place: str, tmp_path: Path) -> None:
    crs, longitude, latitude = SEAMS[place]
    region = square("EPSG:32633" if crs == "UTM" else crs, longitude, latitude)
    scenes = find(published(tiles_around(region), tmp_path), region, "2021", ["dem"])
    found = ground(scenes, region, Drawn(hills))
    assert (found["dem_flags"] == 1).all()
    halo = terrain_halo(20.0)
    true = on_grid(region, hills, beyond=halo)
    wanted: dict[str, Any] = {"elevation": true, **terrain_variables(true, 20.0)}
    # No tile has a row at the south pole: within two rows of it, elevation is only known by what lies around.
    x, y = np.meshgrid(found["x"], found["y"])
    hidden = (np.hypot(x, y) < 110) & (place == "south pole")
    for name, tolerance in (
        ("elevation", 0.05),
        ("slope", 0.05),
        ("curvature", 1e-4),
        ("topographic_position", 2e-3),
    ):
        difference = abs(found[name].to_numpy() - wanted[name][halo:-halo, halo:-halo])
        assert difference[~hidden].max() < tolerance, name
        assert difference[hidden].max(initial=0) < 0.5, name


@pytest.mark.parametrize("place", ["60 N", "60 S", "85 N", "85 N, other way", "antimeridian", "near the pole"])
def test_aspects_count_from_true_north_on_every_grid(place: str, tmp_path: Path) -> None:
    """A slope that falls towards the south-east of the compass does so on every map, however its grid is turned."""
    crs, longitude, latitude = SEAMS[place]
    region = square("EPSG:32633" if crs == "UTM" else crs, longitude, latitude, size=24)
    scenes = find(published(tiles_around(region), tmp_path), region, "2021", ["dem"])
    shrink = math.cos(math.radians(latitude))

    def falling(lon: Array, lat: Array) -> Array:
        east = (lon - longitude + 180) % 360 - 180
        return 1000 + (lat - latitude - east * shrink) * 20_000

    found = ground(scenes, region, Drawn(falling))
    aspect = np.degrees(np.arctan2(found["aspect_sin"], found["aspect_cos"]))
    # Metres to a degree of latitude and of longitude differ by 0.7 % on the ellipsoid, and meridians converge.
    np.testing.assert_allclose(aspect, 135.0, atol=5.0 if place == "near the pole" else 0.6)


@pytest.mark.parametrize("resolution", [10.0, 14.0, 30.0, 60.0, 100.0, 300.0])
def test_a_pixel_has_one_value_whatever_the_cell(resolution: float, tmp_path: Path) -> None:
    region = square("EPSG:32633", 10.0, 60.0, size=50, resolution=resolution)
    scenes = find(published(tiles_around(region), tmp_path), region, "2021", ["dem"])
    whole, parts = (ground(scenes, region, Drawn(hills), cell) for cell in (50, 17))
    for name in whole.data_vars:
        np.testing.assert_array_equal(whole[name], parts[name], err_msg=str(name))
    # A coarse pixel is the mean of what it covers, and not a point.
    fine = square("EPSG:32633", 10.0, 60.0, size=50, resolution=resolution)
    n = 8
    a = fine.geobox.affine
    detailed = Region("fine", GeoBox((50 * n, 50 * n), a * Affine.scale(1 / n), fine.geobox.crs))
    mean = on_grid(detailed, hills).reshape(50, n, 50, n).mean(axis=(1, 3))
    np.testing.assert_allclose(whole["elevation"], mean, atol=1.0 if resolution < 60 else 4.0)


def test_a_fine_grid_finds_the_tile_beside_it_that_it_interpolates_from(tmp_path: Path) -> None:
    """Pixels of 5 m, 45 m from the edge of a tile: cubic convolution reaches 62 m."""
    region = square("EPSG:32633", 15.0, 60.3, size=40, resolution=5)
    west = Transformer.from_crs("EPSG:4326", "EPSG:32633", always_xy=True).transform(15.0, 60.3)[0]
    shift = round((west + 45 - region.geobox.boundingbox.left) / 5)
    region = Region("beside", region.geobox.translate_pix(shift, 0))
    scenes = find(published(tiles_around(region), tmp_path), region, "2021", ["dem"])
    assert len(scenes) == 2
    found = ground(scenes, region, Drawn(hills))
    np.testing.assert_allclose(found["elevation"], on_grid(region, hills), atol=0.05)


def coast(longitude: Array, _: Array) -> Array:
    """Land in the east that ends 300 m east of 15 E."""
    shore = (longitude - 15.005) * 20_000
    return np.where(shore > 0, shore, 0.0)


def test_a_degree_without_a_tile_that_is_seen_from_the_sea_is_sea(tmp_path: Path) -> None:
    region = square("EPSG:32633", 15.0, 70.5)
    scenes = find(published([tile_item(70, 15)], tmp_path), region, "2021", ["dem"])
    found = ground(scenes, region, Drawn(coast))
    west = on_grid(region, lambda lon, _: lon) < 15 - 0.5 / 1800
    np.testing.assert_array_equal(found["dem_flags"], np.where(west, 2, 1))
    assert (found["elevation"].to_numpy()[west] == 0).all()
    assert found["elevation"].notnull().all()
    assert found["slope"].notnull().all()
    assert float(found["elevation"].max()) > 10


@pytest.mark.parametrize("surface", [hills, lambda lon, lat: np.where(lat > 70.9, 30.0, coast(lon, lat))])
def test_a_degree_without_a_tile_that_land_leads_into_is_a_gap(surface: Surface, tmp_path: Path) -> None:
    """In the second surface the land crosses the edge 45 km from the region, which itself sees nothing but sea."""
    region = square("EPSG:32633", 15.0, 70.5)
    scenes = find(published([tile_item(70, 15)], tmp_path), region, "2021", ["dem"])
    found = ground(scenes, region, Drawn(surface))
    west = on_grid(region, lambda lon, _: lon) < 15 - 0.5 / 1800
    np.testing.assert_array_equal(found["dem_flags"], np.where(west, 4, 1))
    assert found["elevation"].isnull().to_numpy()[west].all()
    assert found["elevation"].notnull().to_numpy()[~west].all()


def test_sea_goes_on_over_a_corner_and_a_gap_spoils_its_neighbours(tmp_path: Path) -> None:
    """Of four degrees one has a tile: the one across the corner is known through those beside it."""
    region = square("EPSG:32633", 15.0, 70.0)
    scenes = find(published([tile_item(70, 15)], tmp_path), region, "2021", ["dem"])

    def island(lon: Array, lat: Array) -> Array:
        return np.where((lon > 15.002) & (lat > 70.001), 40.0, 0.0)

    found = ground(scenes, region, Drawn(island))
    assert set(np.unique(found["dem_flags"])) == {1, 2}
    assert found["elevation"].notnull().all()

    def headland(lon: Array, _: Array) -> Array:
        return np.where(lon > 15.002, 40.0, 0.0)

    found = ground(scenes, region, Drawn(headland))
    assert set(np.unique(found["dem_flags"])) == {1, 4}


@pytest.mark.parametrize("nodata", [float("nan"), -32767.0, -9999.0])
def test_voids_are_flagged_and_not_filled(nodata: float, tmp_path: Path) -> None:
    region = square("EPSG:32633", 15.5, 70.5)
    scenes = find(published([tile_item(70, 15)], tmp_path), region, "2021", ["dem"])

    def hole(lon: Array, lat: Array) -> Array:
        middle = (abs(lon - 15.5) < 0.006) & (abs(lat - 70.5) < 0.002)
        return np.where(middle, nodata, hills(lon, lat))

    found = ground(scenes, region, Drawn(hole))
    void = found["dem_flags"].to_numpy() == 4
    inside = on_grid(region, lambda lon, lat: np.asarray(np.maximum(abs(lon - 15.5) / 0.006, abs(lat - 70.5) / 0.002)))
    # A pixel is void where its nearest native pixel is, which lies half of one away at most.
    assert void[inside < 0.85].all()
    assert not void[inside > 1.15].any()
    np.testing.assert_array_equal(found["elevation"].isnull(), void)
    true = on_grid(region, hills)
    assert abs(found["elevation"].to_numpy() - true)[~void].max() < 5
    # Slopes need all nine pixels.
    assert found["slope"].isnull().sum() > void.sum()


def test_tiles_of_several_dates_are_one_surface_and_the_newest_version_counts(tmp_path: Path) -> None:
    region = square("EPSG:32633", 15.0, 70.0)
    items = [tile_item(69, 14, "2019-01-01"), tile_item(69, 15, "2021-04-22"), tile_item(70, 14, "2022-02-02")]
    items += [tile_item(70, 15, "2020-03-03"), tile_item(70, 15, "2023-05-05", name="_v2")]
    scenes = find(published(items, tmp_path), region, "2021", ["dem"])
    table = scenes.of("dem").table
    assert len(table) == 4
    assert table["time"].nunique() == 1
    assert table["id"].str.endswith("_v2").sum() == 1
    found = ground(scenes, region, Drawn(hills))
    np.testing.assert_allclose(found["elevation"], on_grid(region, hills), atol=0.05)
    assert found.attrs["epoch"] == "2019-01-01/2021-04-22/2022-02-02/2023-05-05"
    assert found["elevation"].attrs["geoid"] == "EGM2008 (EPSG:3855)"
    assert all(json.loads(notes)["geoid"] == "EGM2008 (EPSG:3855)" for notes in table["notes"])


def test_only_native_pixels_are_asked_for(tmp_path: Path) -> None:
    region = square("EPSG:32633", 15.0, 70.0)
    scenes = find(published(tiles_around(region), tmp_path), region, "2021", ["dem"])
    backend = Drawn(hills)
    ground(scenes, region, backend)
    steps = {(round(1 / r.geobox.resolution.x), round(-1 / r.geobox.resolution.y)) for r in backend.asked}
    assert steps == {(1800, 3600), (1200, 3600)}


def test_another_layout_is_one_raster_and_what_it_does_not_cover_is_void(tmp_path: Path) -> None:
    """Pixels that do not fall on whole degrees, as in the DEM of Khumbu: no ocean is made up around it."""
    item = tile_item(70, 15)
    item["properties"] |= {"proj:transform": [1 / 3600, 0, 15.49, 0, -1 / 3600, 70.503], "proj:shape": [21, 72]}
    region = square("EPSG:32633", 15.5, 70.5)
    scenes = find(published([item], tmp_path), region, "2021", ["dem"])
    found = ground(scenes, region, Drawn(hills))
    covered: Surface = lambda lon, lat: np.asarray(  # noqa: E731
        (lon > 15.49) & (lon < 15.51) & (lat < 70.503) & (lat > 70.503 - 21 / 3600), dtype=float
    )
    inside = on_grid(region, covered)
    np.testing.assert_array_equal(found["dem_flags"], np.where(inside > 0, 1, 4))
    np.testing.assert_array_equal(found["elevation"].isnull(), inside == 0)


def test_native_pixels_are_the_stored_ones(world: World, catalog: Path) -> None:
    scenes = find(catalog, world.region, "2021", ["dem"]).of("dem")
    layout, samples, others = lay_out(scenes.items(), ["data"] * 4, world.region.search_boxes(100.0), 20.0)
    assert (len(layout), samples, others) == (1, 1, [])
    native = open_native(layout[0], get_sensor("dem"), scenes, backend_odc.read)
    cells = [(strip, array, cell) for strip, array in native.strips for cell in strip.cells]
    assert sorted(cell for _, _, cell in cells) == [(59, -148), (59, -147), (60, -148), (60, -147)]
    for strip, array, (south, west) in cells:
        (path,) = catalog.parent.rglob(f"*_N{south}_00_W{-west}_00_DEM.tif")
        stored = _file(path)[1]
        np.testing.assert_array_equal(array[strip.window((south, west))].compute(), stored)
        assert stored.any()


def test_tiles_read_from_files_have_no_seam_at_four_corners_and_60_north(world: World, catalog: Path) -> None:
    """In the simulated world, against the samples of all four tiles taken together."""
    terrain = load(find(catalog, world.region, "2021", ["dem"]), world.region)["terrain"].to_dataset().compute()
    longitude, latitude = (on_grid(world.region, f) for f in (lambda lon, _: lon, lambda _, lat: lat))
    assert longitude.min() < -147 < longitude.max()
    assert latitude.min() < 60 < latitude.max()
    stored = [_file(path) for path in sorted((catalog.parent / "cop-dem-glo-30").rglob("*.tif"))]
    assert len(stored) == 4
    # Each stored sample that lies within 3 m of a pixel's centre, on whichever tile, is that pixel's elevation.
    near, wanted = _stored_beside(stored, world.region, distance=3.0)
    assert near.size > 30
    assert {int(n) for n in np.unique(wanted[1])} == {0, 1, 2, 3}
    slope = terrain["slope"].to_numpy().ravel()[near]
    error = abs(terrain["elevation"].to_numpy().ravel()[near] - wanted[0])
    assert (error < 0.2 + 3 * np.tan(np.radians(slope))).all()
    # Across the edges slopes go on as they do elsewhere.
    jump = abs(np.diff(terrain["slope"].to_numpy(), axis=0))
    row = int(np.argmin(abs(latitude[:, 40] - 60)))
    assert jump[row - 2 : row + 2].mean() < 2 * np.median(np.sort(jump.mean(axis=1))[-20:])


def _file(path: Path) -> tuple[Affine, npt.NDArray[np.float32]]:
    with rasterio.open(path) as source:
        return source.transform, source.read(1)


def _stored_beside(
    stored: Sequence[tuple[Affine, npt.NDArray[np.float32]]], region: Region, distance: float
) -> tuple[npt.NDArray[np.int64], Array]:
    """Pixels of a region whose centre has a stored sample nearby: flat index, and (value, tile) of the sample."""
    longitude, latitude = (on_grid(region, f).ravel() for f in (lambda lon, _: lon, lambda _, lat: lat))
    found, samples = [], []
    for number, (a, pixels) in enumerate(stored):
        column, row = (longitude - a.c) / a.a - 0.5, (latitude - a.f) / a.e - 0.5
        c, r = np.rint(column).astype(int), np.rint(row).astype(int)
        east = (column - c) * a.a * 111_320 * np.cos(np.radians(latitude))
        held = (c >= 0) & (r >= 0) & (c < pixels.shape[1]) & (r < pixels.shape[0])
        held &= np.hypot(east, (row - r) * a.e * 111_320) < distance
        found.append(np.flatnonzero(held))
        samples.append(np.stack([pixels[r[held], c[held]], np.full(held.sum(), number)]))
    return np.concatenate(found), np.concatenate(samples, axis=1)


@pytest.fixture
def gdaldem() -> str:
    program = shutil.which("gdaldem")
    if program is None:
        if os.environ.get("GLACIERCUBE_SERVICES") == "required":
            pytest.fail("gdaldem is not installed (Debian: gdal-bin), and GLACIERCUBE_SERVICES requires it")
        pytest.skip("gdaldem is not installed (Debian: gdal-bin)")
    return program


def test_slope_and_aspect_are_gdals(gdaldem: str, real_data: Path, tmp_path: Path) -> None:
    """Real Copernicus GLO-30 over Mount Baker: within 0.1 degree of gdaldem away from edges, as far as it can tell.

    gdaldem adds elevations as float32: three sums of up to 2, 3 and 4 elevations on each side of a pixel, each rounded
    by 2**-24 of itself at most. On nearly level ground that turns its aspect by more than 0.1 degree.
    """
    theirs, elevation, resolution = _gdaldem(gdaldem, real_data / "copernicus_dem" / "cop30_baker.tif", tmp_path)
    inner = (slice(1, -1), slice(1, -1))
    ours = {name: values[inner] for name, values in terrain_variables(elevation, resolution).items()}
    # The map is a rotated square: a quarter has no data.
    assert np.isfinite(theirs["slope"]).mean() > 0.7
    np.testing.assert_array_equal(np.isfinite(ours["slope"]), np.isfinite(theirs["slope"]))
    assert np.nanmax(abs(ours["slope"] - theirs["slope"])) < 0.01
    # gdaldem gives level ground no aspect; here it is 0, 0.
    known = np.isfinite(theirs["aspect"])
    np.testing.assert_array_equal(known, ours["slope"] > 0)
    slope = ours["slope"][known].astype(float)
    turn = _turn(_direction(ours["aspect_sin"], ours["aspect_cos"]), theirs["aspect"])[known]
    # Two sides, two directions; a gradient of 8 pixels times tan(slope) is turned by so much at most.
    rounding = 2**-24 * 2 * (2 + 3 + 4) * np.sqrt(2) * ndimage.maximum_filter(elevation, 3)[inner][known]
    explained = np.degrees(np.arcsin(np.minimum(rounding / (8 * resolution * np.tan(np.radians(slope))), 1)))
    assert (turn <= np.maximum(explained, 1e-3)).all()
    assert ((turn <= 0.1) | (slope < 0.5)).all()
    assert (turn > 0.1).mean() < 1e-3
    # And the same sums, in the same order, give the same aspect on every pixel: nothing else is behind it.
    same = _turn(_direction(*_sums_as_gdal(elevation.astype(np.float32))), theirs["aspect"])[known]
    assert same.max() < 1e-3


def _gdaldem(program: str, source: Path, folder: Path) -> tuple[dict[str, Array], Array, float]:
    """Slope and aspect by gdaldem without the outermost pixels, the elevation, and the pixel size."""
    theirs = {}
    for name in ("slope", "aspect"):
        target = folder / f"{name}.tif"
        subprocess.run([program, name, str(source), str(target), "-alg", "Horn", "-q"], check=True)
        with rasterio.open(target) as raster:
            theirs[name] = np.where(raster.read(1) == raster.nodata, np.nan, raster.read(1))[1:-1, 1:-1]
    with rasterio.open(source) as raster:
        stored = raster.read(1)
        return theirs, np.where(stored == raster.nodata, np.nan, stored), float(raster.res[0])


def _sums_as_gdal(z: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """East and north components of the downslope direction, as GDALAspectAlg adds them."""
    (nw, n, ne), (w, _, e), (sw, s, se) = (
        [z[i : i - 2 or None, j : j - 2 or None] for j in range(3)] for i in range(3)
    )
    return (nw + w + w + sw) - (ne + e + e + se), (sw + s + s + se) - (nw + n + n + ne)


def _direction(east: npt.NDArray[Any], north: npt.NDArray[Any]) -> Array:
    return np.asarray(np.degrees(np.arctan2(east.astype(float), north.astype(float))))


def _turn(one: Array, other: Array) -> Array:
    return np.asarray(abs((one - other + 180) % 360 - 180))


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (2, 2), (3, 3)])
def test_grids_of_few_pixels_have_their_slopes(shape: tuple[int, int], tmp_path: Path) -> None:
    whole = square("EPSG:32633", 15.5, 70.5, size=12)
    small = Region("small", whole.geobox[4 : 4 + shape[0], 4 : 4 + shape[1]])
    scenes = find(published(tiles_around(whole), tmp_path), whole, "2021", ["dem"])
    found, wanted = ground(scenes, small, Drawn(hills)), ground(scenes, whole, Drawn(hills))
    for name in found.data_vars:
        inside = wanted[name][4 : 4 + shape[0], 4 : 4 + shape[1]]
        np.testing.assert_array_equal(found[name], inside, err_msg=str(name))
