"""load() and compose(): lazy, in physical units, one value per pixel, on one time axis."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pystac
import pytest
import rasterio
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

from glaciercube.catalog import Scenes, find
from glaciercube.cube import ComposeOptions, LoadOptions, compose, load, nan_median, schedule
from glaciercube.cube.north import north_at
from glaciercube.cube.passes import Pass
from glaciercube.cube.terrain import hillshade, terrain_halo, terrain_variables, topographic_position
from glaciercube.errors import CubeError, ReadError
from glaciercube.reading.reader import Driver
from glaciercube.region import Region
from glaciercube.simulate.world import World


@pytest.fixture(scope="module")
def scenes(world: World, catalog: Path) -> Scenes:
    return find(catalog, world.region, "2021/2022")


@pytest.fixture(scope="module")
def tree(scenes: Scenes, world: World) -> xr.DataTree:
    return load(scenes, world.region)


def test_tree_has_a_node_per_sensor_in_physical_units(tree: xr.DataTree, world: World) -> None:
    assert set(tree.children) == {"sentinel2", "sentinel1", "terrain"}
    optical, radar, terrain = (tree[name].to_dataset().compute() for name in ("sentinel2", "sentinel1", "terrain"))
    assert optical.sizes == {"time": 4, "y": 80, "x": 80}
    assert optical["red"].dtype == "float32"
    assert optical["red"].attrs["units"] == "1"
    assert -0.2 < float(optical["red"].min()) < float(optical["red"].max()) < 2
    assert optical["scl"].dtype == "uint8"
    assert (optical["sun_elevation"] > 10).all()
    assert radar["vv_db"].attrs["units"] == "dB"
    np.testing.assert_allclose(radar["vv_db"], 10 * np.log10(radar["vv"]), rtol=1e-4)
    assert float(radar["vv"].min()) > 0
    assert terrain["elevation"].dims == ("y", "x")
    assert 0 <= float(terrain["slope"].min()) < float(terrain["slope"].max()) < 90
    for node in (optical, radar, terrain):
        assert node["spatial_ref"].attrs["crs_wkt"]
        np.testing.assert_array_equal(node["x"], world.truth["x"])
        np.testing.assert_array_equal(node["y"], world.truth["y"])


def test_nothing_is_read_until_asked(scenes: Scenes, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    original = Driver.open

    def counted(self: Driver, src: Any, ctx: Any) -> Any:
        opened.append(src.uri)
        return original(self, src, ctx)

    monkeypatch.setattr(Driver, "open", counted)
    monkeypatch.setattr(rasterio, "open", lambda *_, **__: pytest.fail("a file was opened while planning"))
    cubes = {on: compose(load(scenes, world.region), on) for on in ("observation", "month", "season", "year")}
    assert not opened
    monkeypatch.undo()
    monkeypatch.setattr(Driver, "open", counted)
    cubes["observation"]["red"].isel(time=0, y=slice(0, 8), x=slice(0, 8)).compute()
    assert opened
    assert all(uri.endswith("B04.tif") or "B04" in uri for uri in opened)


def test_offset_and_offset_free_scenes_give_the_same_reflectance(
    catalog: Path, world: World, scenes: Scenes, tmp_path: Path
) -> None:
    """The duplicate shows the same ground under two baselines: once with 1000 added to its numbers, once without."""
    published = pystac.Catalog.from_file(str(catalog)).get_child("sentinel-2-l2a")
    assert published is not None
    table = scenes.of("sentinel-2").table
    old = next(item for item in published.get_items() if item.id not in set(table["id"]))
    new = next(i for i in table["id"] if i.startswith(old.id.rpartition("_")[0]))
    pixels, stored = {}, {}
    for name in (old.id, new):
        item = published.get_item(name)
        assert item is not None
        red = item.assets["B04"].get_absolute_href()
        assert red is not None
        with rasterio.open(red) as source:
            stored[name] = source.read(1).astype(float)
        own = _only(item, world, tmp_path / name)
        pixels[name] = load(own, world.region)["sentinel2"]["red"].isel(time=0).compute()
    both = (stored[old.id] > 0) & (stored[new] > 0)
    assert abs(np.median((stored[new] - stored[old.id])[both]) - 1000) < 60
    difference = (pixels[new] - pixels[old.id]).to_numpy()
    assert abs(np.nanmedian(difference)) < 0.006


def _only(item: pystac.Item, world: World, folder: Path) -> Scenes:
    """Scenes of a catalogue that holds this one item: duplicates are resolved against nothing."""
    item.make_asset_hrefs_absolute()
    lone = item.clone()
    lone.clear_links()
    everywhere = pystac.SpatialExtent([-180.0, -90.0, 180.0, 90.0])
    extent = pystac.Extent(everywhere, pystac.TemporalExtent([[None, None]]))  # type: ignore[arg-type]
    collection = pystac.Collection("sentinel-2-l2a", "one scene", extent)
    collection.add_item(lone)
    root = pystac.Catalog("one", "one scene")
    root.add_child(collection)
    root.normalize_and_save(str(folder), pystac.CatalogType.SELF_CONTAINED)
    return find(folder / "catalog.json", world.region, "2021/2022", ["sentinel-2"])


def test_a_pixel_has_one_value_whichever_block_asks(scenes: Scenes, world: World) -> None:
    whole = load(scenes, world.region, LoadOptions(cell=32))
    for node, name in (("sentinel2", "red"), ("sentinel2", "swir16"), ("sentinel1", "vv"), ("terrain", "slope")):
        variable = whole[node][name]
        window = {"y": slice(21, 70), "x": slice(5, 44)}
        np.testing.assert_array_equal(variable.isel(window).compute(), variable.compute().isel(window))


def test_terrain_has_no_seams(scenes: Scenes, world: World) -> None:
    elevation = load(scenes, world.region, LoadOptions(cell=512))["terrain"]["elevation"].compute()
    for cell in (32, 512):
        terrain = load(scenes, world.region, LoadOptions(cell=cell))["terrain"].to_dataset().compute()
        wanted = terrain_variables(terrain["elevation"].to_numpy(), 20.0)
        for name, values in wanted.items():
            # Aspects count from true north, here within a fraction of a degree of the grid's.
            exact = 2e-3 if name.startswith("aspect") else 2e-4
            # What lies beyond the grid counts for the outermost pixels.
            inside = (slice(25, -25),) * 2 if name == "topographic_position" else (slice(1, -1),) * 2
            np.testing.assert_allclose(terrain[name][inside], values[inside], atol=exact, err_msg=name)
    assert elevation.notnull().all()


def test_a_corrupt_file_raises_and_names_itself(scenes: Scenes, world: World, tmp_path: Path) -> None:
    broken = tmp_path / "B04.tif"
    broken.write_bytes(b"not a tiff")
    table = scenes.of("sentinel-2").table.copy()
    item = table.loc[0, "item"]
    href = pystac.Item.from_dict(json.loads(item), migrate=False).assets["B04"].href
    table.loc[0, "item"] = item.replace(href, str(broken))
    cube = load(Scenes(table, scenes.source), world.region)["sentinel2"]
    with pytest.raises(ReadError, match=r"cannot read .*B04\.tif .*not recognized.*nothing was filled in"):
        cube["red"].isel(time=0).compute()
    # The other dates and bands are as readable as before.
    assert cube["red"].isel(time=2).notnull().any()
    assert cube["blue"].isel(time=0).notnull().any()


@given(st.integers(0, 6), st.integers(0, 2), st.integers(0, 10_000))
def test_median_is_numpys(length: int, axis: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.random((length + 1, 3, 4))
    values[rng.random(values.shape) < 0.4] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        wanted = np.nanmedian(values, axis=axis)
    np.testing.assert_allclose(nan_median(values, axis=axis), wanted)


def test_slope_and_aspect_of_a_plane() -> None:
    # Falling 1 m in 4 towards the south-east.
    y, x = np.mgrid[0:20, 0:30] * 10.0
    plane = 1000.0 - (y + x) / np.sqrt(2) / 4
    found = terrain_variables(plane, 10.0)
    np.testing.assert_allclose(found["slope"], np.degrees(np.arctan(0.25)), rtol=1e-5)
    np.testing.assert_allclose(np.degrees(np.arctan2(found["aspect_sin"], found["aspect_cos"])), 135, rtol=1e-5)
    np.testing.assert_allclose(found["curvature"], 0, atol=1e-6)
    bowl = terrain_variables((x - 150) ** 2 / 1000, 10.0)
    np.testing.assert_allclose(bowl["curvature"][1:-1, 1:-1], 2 / 1000, rtol=1e-3)
    flat = terrain_variables(np.zeros((5, 5)), 10.0)
    assert not flat["slope"].any()
    assert np.isfinite(flat["aspect_sin"]).all()


@pytest.mark.parametrize(
    ("crs", "longitude", "azimuth"),
    # Polar stereographic north: the meridian of -45 points up; at 45 E north is to the left, at -20 in between.
    [("EPSG:32606", -147.0, 0.0), ("EPSG:3413", -45.0, 0.0), ("EPSG:3413", 45.0, -90.0), ("EPSG:3413", -20.0, -25.0)],
)
def test_true_north_on_a_grid(crs: str, longitude: float, azimuth: float) -> None:
    (x,), (y,) = rasterio.warp.transform("EPSG:4326", crs, [longitude], [75.0])
    grid = GeoBox.from_bbox((x - 900, y - 900, x + 900, y + 900), crs=crs, resolution=20)
    east, north = np.meshgrid(np.linspace(x - 890, x + 890, 90), np.linspace(y - 890, y + 890, 90))
    sine, cosine = north_at(grid, east.ravel(), north.ravel())
    found = np.degrees(np.arctan2(sine, cosine))
    np.testing.assert_allclose(found, azimuth, atol=0.1)


def test_hillshade_faces_the_sun() -> None:
    sun = {"sun_azimuth": 135.0, "sun_elevation": 40.0}
    facing = hillshade(np.float32(50), np.sin(np.radians(135)), np.cos(np.radians(135)), **sun)
    away = hillshade(np.float32(50), np.sin(np.radians(315)), np.cos(np.radians(315)), **sun)
    assert facing == pytest.approx(1.0)
    assert away == 0
    assert hillshade(np.float32(0), 0.0, 0.0, **sun) == pytest.approx(np.sin(np.radians(40)))


def test_topographic_position_is_the_deviation_from_the_mean_of_a_kilometre() -> None:
    rng = np.random.default_rng(3)
    z = 2000 + 400 * np.cumsum(rng.normal(size=(60, 60)), axis=0)
    z[11, 20] = np.nan
    found = topographic_position(z, 50.0)
    for row, column in ((30, 30), (12, 18), (0, 0), (59, 7)):
        # 500 m are 10 pixels of 50 m; what is unknown or beyond the array is left out.
        around = z[max(row - 10, 0) : row + 11, max(column - 10, 0) : column + 11]
        wanted = (z[row, column] - np.nanmean(around)) / (np.nanstd(around) + 5.0)
        assert found[row, column] == pytest.approx(wanted, abs=2e-4)
    assert np.isnan(found[11, 20])
    assert np.isnan(found).sum() == 1
    # The same in a range 4 km higher, and level ground has no position.
    np.testing.assert_allclose(topographic_position(z + 4000, 50.0), found, atol=1e-5)
    assert not topographic_position(np.full((30, 30), 812.0), 50.0).any()


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 30), st.integers(0, 30), st.integers(1, 40), st.integers(1, 40))
def test_topographic_position_is_one_bit_for_bit_whatever_the_block(
    top: int, left: int, height: int, width: int
) -> None:
    z = np.random.default_rng(0).normal(6000, 900, (100, 100)).astype(np.float32)
    whole, halo = topographic_position(z, 50.0), terrain_halo(50.0)
    rows, columns = slice(top, top + height + 2 * halo), slice(left, left + width + 2 * halo)
    inside = (slice(halo, halo + height), slice(halo, halo + width))
    part = topographic_position(z[rows, columns], 50.0)[inside]
    np.testing.assert_array_equal(part.view(np.uint32), whole[rows, columns][inside].view(np.uint32))


def test_missing_elevation_makes_missing_slope() -> None:
    elevation = np.random.default_rng(0).random((9, 9))
    elevation[4, 4] = np.nan
    slope = terrain_variables(elevation, 10.0)["slope"]
    assert np.isnan(slope[3:6, 3:6]).all()
    assert np.isfinite(np.delete(slope.ravel(), [r * 9 + c for r in (3, 4, 5) for c in (3, 4, 5)])).all()


def test_observations_keep_the_leading_axis_and_say_how_old_companions_are(tree: xr.DataTree) -> None:
    cube = compose(tree)
    optical, radar = tree["sentinel2"], tree["sentinel1"]
    np.testing.assert_array_equal(cube["time"], optical["time"])
    ages = cube["sentinel1_age"].to_numpy()
    for row, time in enumerate(cube["time"].to_numpy()):
        days = (radar["time"].to_numpy() - time) / np.timedelta64(1, "D")
        nearest = np.abs(days).argmin()
        assert ages[row] == pytest.approx(days[nearest], abs=1e-3)
        np.testing.assert_array_equal(cube["vv"].isel(time=row).compute(), radar["vv"].isel(time=nearest).compute())
    strict = compose(tree, ComposeOptions(max_age=0.0))
    assert np.isnan(strict["sentinel1_age"]).all()
    assert strict["vv"].isnull().all()
    assert cube["optical_flags"].dtype == "uint8"
    flags, scl = cube["optical_flags"].compute(), optical["scl"].compute()
    observed = optical["red"].notnull().compute()
    # What the classification calls cloud is cloud, or recovered as ice (64), which sets the bit of snow too.
    np.testing.assert_array_equal((flags & (2 | 64)) > 0, scl.isin([8, 9, 10]) & observed)
    np.testing.assert_array_equal(((flags & 8) > 0) & ((flags & 64) == 0), (scl == 11) & observed)
    # What a companion was is under its own name, and nothing of it under the leading sensor's.
    assert {"sentinel1_orbit_state", "sentinel1_relative_orbit"} <= set(cube.coords)
    assert not {"orbit_state", "relative_orbit", "platform", "group"} & set(cube.coords)


def test_years_are_medians_of_clear_pixels(tree: xr.DataTree) -> None:
    cube, single = compose(tree, "year").compute(), compose(tree).compute()
    assert list(cube["time"].dt.year.to_numpy()) == [2021, 2022]
    clear = (single["optical_flags"] & 7) == 1
    for row, year in enumerate((2021, 2022)):
        of_year = np.flatnonzero(single["time"].dt.year == year)
        values = single["red"].where(clear).isel(time=of_year)
        np.testing.assert_allclose(cube["red"].isel(time=row), values.median("time"), rtol=1e-6)
        power = tree["sentinel1"].to_dataset()["vv"].compute()
        state = str(cube["sentinel1_orbit_state"].to_numpy()[row])
        entered = np.flatnonzero((power["time"].dt.year == year) & (power["orbit_state"] == state))
        assert int(cube["sentinel1_dates"][row]) == len(entered) > 0
        mine = power.isel(time=entered).median("time")
        np.testing.assert_allclose(cube["vv"].isel(time=row), mine, rtol=1e-6)
        # Decibels of the median power, not the median of decibels.
        np.testing.assert_allclose(cube["vv_db"].isel(time=row), 10 * np.log10(mine), rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(cube["time_bnds"][:, 1].dt.year, [2022, 2023])
    never = ~clear.isel(time=slice(0, 2)).any("time")
    np.testing.assert_array_equal(cube["red"].isel(time=0).isnull(), never)


def test_windows_and_suns() -> None:
    times = pd.to_datetime(["2023-12-31T10:00", "2024-01-15T10:00", "2024-03-02T10:00"]).to_numpy()
    rows = schedule({"sentinel2": times}, ComposeOptions("season"))
    assert [str(row.time)[:10] for row in rows] == ["2023-12-01", "2024-03-01"]
    assert [len(row.members["sentinel2"]) for row in rows] == [2, 1]
    rows = schedule({"sentinel2": times[:1], "sentinel1": times[1:]}, ComposeOptions("month"))
    assert [tuple(row.members) for row in rows] == [("sentinel2",), ("sentinel1",), ("sentinel1",)]
    assert np.isnan(rows[0].age("sentinel1", "sentinel2"))


def a_pass(orbit: int, state: str, polarizations: str = "vv+vh", mode: str = "IW") -> Pass:
    return Pass(orbit, state, mode, polarizations)


def days(*numbers: float) -> Any:
    return np.datetime64("2024-07-01", "ms") + (np.array(numbers) * 86_400_000).astype("timedelta64[ms]")


def members(axes: dict[str, Any], passes: list[Pass], every: str = "month", **options: Any) -> list[list[int]]:
    """Per row, the radar acquisitions that it is made of."""
    shares = {"sentinel1": np.array(options.pop("shares"))} if "shares" in options else None
    rows = schedule(axes, ComposeOptions(every, **options), shares, {"sentinel1": passes})  # type: ignore[arg-type]
    times = list(axes["sentinel1"])
    return [[times.index(time) for time in row.members.get("sentinel1", ())] for row in rows]


DOWN, UP = a_pass(80, "descending"), a_pass(102, "ascending")


@pytest.mark.parametrize(
    ("passes", "options", "chosen"),
    [
        ([DOWN, UP, DOWN, UP, UP], {}, [1, 3, 4]),
        # A corner of the region five times is less than all of it twice.
        ([DOWN, UP, DOWN, UP, UP], {"shares": [1, 0.1, 1, 0.1, 0.1]}, [0, 2]),
        ([DOWN, UP, DOWN, UP, UP], {"shares": [0.2, 0.1, 0.2, 0.1, 0.1]}, [1, 3, 4]),
        # As many: nearest to the optical mean, on the 10th; the days are 1, 4, 9, 14 and 20.
        ([DOWN, DOWN, UP, UP, a_pass(7, "ascending")], {}, [2, 3]),
        # As near: the smaller number.
        ([a_pass(9, "x"), a_pass(5, "x"), a_pass(5, "x"), a_pass(9, "x"), a_pass(8, "x")], {"at": [6.5]}, [1, 2]),
        # One orbit in two modes, and one with HH alone, are no more alike than two orbits.
        ([DOWN, a_pass(80, "descending", mode="EW"), DOWN, UP, UP], {"at": [1.0]}, [0, 2]),
        ([a_pass(80, "descending", "hh+hv")] * 3 + [UP, UP], {}, [3, 4]),
        ([a_pass(80, "descending", "hh+hv")] * 3 + [a_pass(80, "descending", "hh")] * 2, {}, [0, 1, 2, 3, 4]),
        # What says nothing of itself is one track.
        ([Pass()] * 5, {}, [0, 1, 2, 3, 4]),
    ],
)
def test_a_window_is_of_one_track(passes: list[Pass], options: dict[str, Any], chosen: list[int]) -> None:
    options = dict(options)
    if "at" in options:
        axes = {"sentinel2": days(*options.pop("at")), "sentinel1": days(1, 4, 9, 12, 20)}
    else:
        axes = {"sentinel2": days(8, 12), "sentinel1": days(1, 4, 9, 14, 20)}
    assert members(axes, passes, **options) == [chosen]


def test_a_new_date_leaves_the_windows_before_it_as_they_are() -> None:
    passes = [DOWN, DOWN, UP, UP, UP, UP, DOWN]
    axes = {"sentinel2": days(3, 40), "sentinel1": days(1, 4, 9, 40, 43, 46, 49)}
    assert members(axes, passes) == [[0, 1], [3, 4, 5]]
    for count in range(3, 8):
        assert members({**axes, "sentinel1": axes["sentinel1"][:count]}, passes[:count])[0] == [0, 1]
    # Where radar leads, and where nothing optical is in the window.
    assert members({"sentinel1": axes["sentinel1"]}, passes) == [[0, 1], [3, 4, 5]]
    assert members({**axes, "sentinel2": days(70)}, passes)[:2] == [[0, 1], [3, 4, 5]]


def test_the_median_of_a_window_mixes_no_directions() -> None:
    power = np.array([0.02, 0.2, 0.022], "float32")[:, None, None] * np.ones((1, 2, 2), "float32")
    coords = {
        "time": days(1, 3, 13),
        "orbit_state": ("time", ["descending", "ascending", "descending"]),
        "relative_orbit": ("time", np.array([80, 102, 80], "int16")),
        "platform": ("time", ["sentinel-1c", "sentinel-1a", "sentinel-1a"]),
        "y": [20.0, 0.0],
        "x": [0.0, 20.0],
    }
    radar = xr.Dataset({"vv": (("time", "y", "x"), power)}, coords)
    optical = xr.Dataset({"red": (("time", "y", "x"), power)}, {**coords, "time": days(1, 3, 45)})
    optical = optical.drop_vars(["orbit_state", "relative_orbit", "platform"])
    for parts in ({"sentinel2": optical, "sentinel1": radar}, {"sentinel1": radar}):
        cube = compose(xr.DataTree.from_dict(parts), "month").compute()
        np.testing.assert_allclose(cube["vv"][0], 0.021, rtol=1e-6)
        np.testing.assert_allclose(cube["vv_db"][0], 10 * np.log10(0.021), rtol=1e-5)
        said = {name: cube[f"sentinel1_{name}"].to_numpy()[0] for name in ("orbit_state", "relative_orbit", "platform")}
        assert said == {"orbit_state": "descending", "relative_orbit": 80, "platform": "sentinel-1a+sentinel-1c"}
        assert list(cube["sentinel1_dates"].to_numpy()) == [2, 0][: cube.sizes["time"]]
    assert "sentinel1_age" not in cube
    cube = compose(xr.DataTree.from_dict({"sentinel2": optical, "sentinel1": radar}), "month")
    # The mean of the 1st and 13th, and that of the 1st and 3rd.
    np.testing.assert_allclose(cube["sentinel1_age"], [5.0, np.nan])
    assert list(cube["sentinel1_orbit_state"].to_numpy()) == ["descending", ""]
    assert list(cube["sentinel1_relative_orbit"].to_numpy()) == [80, 0]


@pytest.mark.parametrize(
    ("polarizations", "shares", "chosen"),
    [
        (["vv+vh", "hh", "hh+hv"], [1, 1, 1], 0),
        (["vv+vh", "vv", "hh"], [1, 1, 1], 0),
        (["vv+vh", "vv", "hh"], [0.2, 1, 1], 1),
        (["vv+vh", "hh", "hh"], [0.2, 1, 1], 0),
        (["hh+hv", "hh", "vv"], [1, 1, 1], 2),
        (["hh+hv", "hh", "hh"], [1, 1, 1], 0),
        (["vv+vh", "vv+vh", "vv+vh"], [1, 1, 1], 1),
        (["", "", ""], [1, 1, 1], 1),
    ],
)
def test_a_companion_with_vv_goes_before_one_that_is_nearer(
    polarizations: list[str], shares: list[float], chosen: int
) -> None:
    axes = {"sentinel2": days(10), "sentinel1": days(6, 10, 12)}
    passes = [a_pass(80, "descending", names) for names in polarizations]
    assert members(axes, passes, "observation", shares=shares) == [[chosen]]
    # Not at any price: what is too old is not taken.
    assert members(axes, passes, "observation", shares=shares, max_age=1.0) == [[1]]


def test_any_subset_of_sensors_composes(tree: xr.DataTree) -> None:
    for keep in (["sentinel1"], ["terrain"], ["sentinel1", "terrain"], ["sentinel2"]):
        part = xr.DataTree.from_dict({name: tree[name].to_dataset() for name in keep})
        cube = compose(part)
        assert cube.sizes["time"] >= 1
        assert ("red" in cube) == ("sentinel2" in keep)
        assert ("slope" in cube) == ("terrain" in keep)
    with pytest.raises(CubeError, match="neither sentinel2"):
        compose(xr.DataTree())
    with pytest.raises(CubeError, match="cannot compose on 'week'"):
        compose(tree, "week")


def test_another_projection_shows_the_same_ground(world: World, catalog: Path) -> None:
    """Elevation on a polar stereographic grid equals that on UTM at the same points of the Earth."""
    utm = world.region.geobox
    polar = Region("polar", utm.to_crs("EPSG:3413", resolution=20))  # type: ignore[arg-type]
    own = find(catalog, world.region, "2021/2022", ["dem"])
    here = load(own, world.region)["terrain"]["elevation"].compute()
    there = load(own, polar)["terrain"]["elevation"].compute()
    x, y = np.meshgrid(there["x"], there["y"])
    east, north = rasterio.warp.transform("EPSG:3413", str(utm.crs), x.ravel(), y.ravel())
    at = {"x": xr.DataArray(east, dims="p"), "y": xr.DataArray(north, dims="p")}
    difference = (here.interp(at) - there.to_numpy().ravel()).dropna("p")
    assert difference.sizes["p"] > 4000
    assert float(abs(difference).median()) < 0.5
    shifted = here.interp({"x": at["x"] + 20, "y": at["y"]}) - there.to_numpy().ravel()
    assert float(abs(shifted).median()) > 4 * float(abs(difference).median())
