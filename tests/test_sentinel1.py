"""Sentinel-1: what a scene is, which scenes make one observation, and what is done to power before decibels."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt
import pystac
import pytest
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import Geod
from radar_scenes import GRID, REGION, SIDE, even_ground, plant_border_noise, radar_pass, write_scenes

from glaciercube.campaign import make_plan
from glaciercube.catalog import Scenes, SensorOptions, find
from glaciercube.config import parse_config
from glaciercube.cube import ComposeOptions, LoadOptions, compose, load
from glaciercube.cube.neighbours import with_neighbours
from glaciercube.cube.passes import passes_of_node, passes_of_scenes
from glaciercube.cube.radar import RadarOptions
from glaciercube.cube.speckle import border_noise, lee_filter, local_mean
from glaciercube.errors import BandError, ConfigError, CubeError
from glaciercube.models import load_model
from glaciercube.region import Region
from glaciercube.sensors import Sentinel1
from glaciercube.sensors.datatake import datatake_began, product_key
from glaciercube.simulate.world import World
from glaciercube.store import StoreOptions

SHAPE = (SIDE, SIDE)


def recorded(real_data: Path, kind: str) -> list[pystac.Item]:
    paths = sorted((real_data / "stac_recorded").glob(f"*/sentinel-1-{kind}/items/*.json"))
    assert paths
    return [pystac.Item.from_dict(json.loads(path.read_text()), migrate=False) for path in paths]


def radar(scenes: Scenes, region: Region = REGION, cell: int = 256, **options: Any) -> xr.Dataset:
    tree = load(scenes, region, LoadOptions(cell=cell, radar=RadarOptions(**options)))
    return tree["sentinel1"].to_dataset().compute()


def ground(seed: int, power: float = 0.1, looks: float = 4.4) -> dict[str, npt.NDArray[np.float32]]:
    return {"vv": even_ground(power, looks, SHAPE, seed), "vh": even_ground(power / 4, looks, SHAPE, seed + 1000)}


# Items


def test_no_recorded_grd_item_is_taken_whatever_its_collection_is_called(real_data: Path) -> None:
    for item in recorded(real_data, "grd"):
        for name in ("sentinel-1-grd", "my-radar", "s1"):
            item.collection_id = name
            with pytest.raises(BandError, match=r"raw Sentinel-1 GRD.*sentinel-1-rtc.*make_rtc"):
                Sentinel1().facts(item)
        item.id = "renamed"  # the product's type alone
        with pytest.raises(BandError, match="raw Sentinel-1 GRD"):
            Sentinel1().facts(item)


def test_the_map_grid_that_grd_items_state_is_85_km_or_more_off_at_a_corner(real_data: Path) -> None:
    geod, stated = Geod(ellps="WGS84"), 0
    for item in recorded(real_data, "grd"):
        transform = item.properties.get("proj:transform")
        if transform is None:
            continue  # Planetary Computer's state none
        stated += 1
        rows, columns = item.properties["proj:shape"]
        assert item.geometry is not None
        ring = np.array(item.geometry["coordinates"], dtype=float).reshape(-1, 2)
        affine = Affine(*transform[:6])
        corners = [affine @ corner for corner in ((0, 0), (columns, 0), (columns, rows), (0, rows))]
        off = [min(geod.inv(*corner, *point)[2] for point in ring) for corner in corners]
        assert max(off) >= 85_000
        assert min(off) >= 40_000
    assert stated == 3


def test_the_recorded_rtc_scene_says_its_pass(real_data: Path) -> None:
    (item,) = recorded(real_data, "rtc")
    facts = Sentinel1().facts(item)
    assert facts.overpass == "sentinel-1a/IW/descending/80"
    assert facts.notes["polarizations"] == ["vv", "vh"]
    assert facts.notes["looks"] == 4.4
    assert facts.offset == 0.0
    assert facts.began is not None
    assert facts.began.isoformat() == "2025-03-11T04:30:30+00:00"


def test_slices_of_one_datatake_have_one_label_whichever_are_found(real_data: Path) -> None:
    slices = [item for item in recorded(real_data, "grd") if item.properties["s1:datatake_id"] == "491390"]
    assert len(slices) == 3
    assert {datatake_began(item) for item in slices} == {datatake_began(slices[0])}
    began = datatake_began(slices[0])
    assert began is not None
    assert abs((slices[0].common_metadata.start_datetime - began).total_seconds()) < 10  # type: ignore[operator]
    del slices[0].properties["s1:slice_number"]
    assert datatake_began(slices[0]) is None


def test_two_processings_of_one_slice_are_one_scene() -> None:
    name = "S1A_IW_GRDH_1SDV_20250311T044231_20250311T044249_058252_073302"
    assert product_key(f"{name}_0C44_rtc") == product_key(f"{name}_rtc") == product_key(name) == name
    assert product_key("my-scene") == "my-scene"


# Scenes and passes


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """On one day: both directions, both modes, both pairs, a single polarisation, another platform."""
    views = [
        radar_pass(hour=6.0),
        radar_pass(hour=6.0, platform="C", orbit=37, absolute_orbit=7000, polarizations=("vv",)),
        radar_pass(hour=16.0, direction="ascending", orbit=101),
        radar_pass(hour=7.5, orbit=38, mode="EW", polarizations=("hh", "hv")),
        radar_pass(hour=9.0, orbit=39, mode="EW", polarizations=("hh",)),
    ]
    views[1] = dataclasses.replace(views[1], when=views[1].when.replace(minute=40))
    scenes = [
        (
            view,
            {name: np.full(SHAPE, 0.01 * (n + 1) * (k + 1), np.float32) for k, name in enumerate(view.polarizations)},
        )
        for n, view in enumerate(views)
    ]
    return write_scenes(tmp_path_factory.mktemp("mixed"), scenes)


def test_passes_platforms_and_modes_are_observations_of_their_own(mixed: Path) -> None:
    node = radar(find(mixed, REGION, "2023-07-01", ["sentinel-1"]))
    assert list(node["platform"].to_numpy()) == ["sentinel-1a", "sentinel-1c", *["sentinel-1a"] * 3]
    assert list(node["instrument_mode"].to_numpy()) == ["IW", "IW", "EW", "EW", "IW"]
    assert list(node["orbit_state"].to_numpy()) == [*["descending"] * 4, "ascending"]
    assert list(node["relative_orbit"].to_numpy()) == [37, 37, 38, 39, 101]
    assert len(set(node["group"].to_numpy())) == 5


def test_hh_and_hv_are_never_passed_off_as_vv_and_vh(mixed: Path) -> None:
    node = radar(find(mixed, REGION, "2023-07-01", ["sentinel-1"])).isel(y=5, x=5)
    power = {name: node[name].to_numpy() for name in ("vv", "vh", "hh", "hv")}
    nan = np.nan
    np.testing.assert_allclose(power["vv"], [0.01, 0.02, nan, nan, 0.03], rtol=1e-6)
    np.testing.assert_allclose(power["vh"], [0.02, nan, nan, nan, 0.06], rtol=1e-6)
    np.testing.assert_allclose(power["hh"], [nan, nan, 0.04, 0.05, nan], rtol=1e-6)
    np.testing.assert_allclose(power["hv"], [nan, nan, 0.08, nan, nan], rtol=1e-6)
    for name, values in power.items():
        np.testing.assert_allclose(node[f"{name}_db"], 10 * np.log10(values), rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "orbits"),
    [
        (SensorOptions(orbit="ascending"), [101]),
        (SensorOptions(orbit="descending"), [37, 37, 38, 39]),
        (SensorOptions(orbit=37), [37, 37]),
        (SensorOptions(polarizations=("vv", "vh")), [37, 101]),
        (SensorOptions(polarizations=("HH",)), [38, 39]),
        (SensorOptions(instrument_mode="EW"), [38, 39]),
    ],
)
def test_passes_can_be_chosen_and_the_others_are_listed(mixed: Path, options: SensorOptions, orbits: list[int]) -> None:
    scenes = find(mixed, REGION, "2023-07-01", {"sentinel-1": options})
    assert [json.loads(text)["relative_orbit"] for text in scenes.table["notes"]] == orbits
    assert len(scenes.left_out) == 5 - len(orbits)
    assert all(scenes.left_out["reason"])


def test_a_scene_without_a_co_polarised_band_is_left_out_with_the_reason(tmp_path: Path) -> None:
    views = [radar_pass("2023-07-01"), radar_pass("2023-07-13", polarizations=("hv",))]
    path = write_scenes(tmp_path, [(view, {**ground(1), "hv": ground(2)["vv"]}) for view in views])
    scenes = find(path, REGION, "2023", ["sentinel-1"])
    assert len(scenes) == 1
    assert "neither VV nor HH" in scenes.left_out["reason"].iloc[0]


def test_two_overpasses_under_one_time_are_refused(mixed: Path) -> None:
    scenes = find(mixed, REGION, "2023-07-01", ["sentinel-1"])
    scenes.table["time"] = scenes.table["time"].min()
    with pytest.raises(CubeError, match=r"two overpasses share.*orbit"):
        load(scenes, REGION)


def test_a_cube_on_radars_own_dates_composes_with_passes_of_every_kind(mixed: Path) -> None:
    cube = compose(load(find(mixed, REGION, "2023-07-01", ["sentinel-1"]), REGION))
    assert cube.sizes["time"] == 5
    assert {"vv_db", "hh_db"} <= set(cube.data_vars)


# Passes in windows, and beside optical observations


def planned(scenes: Scenes, every: str, path: Path) -> tuple[list[set[str]], tuple[str, ...]]:
    """Per row, the scenes that the plan lists; and its keys."""
    options = ComposeOptions(every)  # type: ignore[arg-type]
    plan = make_plan(REGION, scenes, load_model("fusion-unet"), StoreOptions(str(path)), compose=options)
    return [set(ids) for ids in plan.scene_ids], plan.keys


def test_a_window_lists_the_scenes_of_its_track_and_no_others(tmp_path: Path) -> None:
    level = {"descending": 0.02, "ascending": 0.2}
    views = [
        radar_pass("2023-07-01"),
        radar_pass("2023-07-03", hour=16, direction="ascending", orbit=101),
        radar_pass("2023-07-13", platform="C"),
        radar_pass("2023-08-02", hour=16, direction="ascending", orbit=101),
    ]
    power = [{name: np.full(SHAPE, level[view.direction], np.float32) for name in ("vv", "vh")} for view in views]
    scenes = find(write_scenes(tmp_path, list(zip(views, power, strict=True))), REGION, "2023", ["sentinel-1"])
    cube = compose(load(scenes, REGION), "month")
    np.testing.assert_allclose(cube["vv"].isel(y=4, x=4), [0.02, 0.2], rtol=1e-6)
    assert list(cube["sentinel1_orbit_state"].to_numpy()) == ["descending", "ascending"]
    assert list(cube["sentinel1_relative_orbit"].to_numpy()) == [37, 101]
    assert list(cube["sentinel1_platform"].to_numpy()) == ["sentinel-1a+sentinel-1c", "sentinel-1a"]
    assert list(cube["sentinel1_polarizations"].to_numpy()) == ["vv+vh"] * 2
    assert list(cube["sentinel1_dates"].to_numpy()) == [2, 1]
    listed, keys = planned(scenes, "month", tmp_path / "x.zarr")
    by_time = list(scenes.table.sort_values("time")["id"])
    assert listed == [{by_time[0], by_time[2]}, {by_time[3]}]
    # A scene that no window is made of changes no row; nor does a new date in another window.
    for fewer, row in ((np.array([0, 2, 3]), slice(0, 2)), (np.array([0, 1, 2]), slice(0, 1))):
        table = scenes.table.sort_values("time").iloc[fewer].reset_index(drop=True)
        assert planned(dataclasses.replace(scenes, table=table), "month", tmp_path / "x.zarr")[1] == keys[row]
    # The user's own choice.
    mine = find(tmp_path / "catalog.json", REGION, "2023-07", {"sentinel-1": SensorOptions(orbit="ascending")})
    forced = compose(load(mine, REGION), "month")
    np.testing.assert_allclose(forced["vv"].isel(y=4, x=4), [0.2], rtol=1e-6)


def test_a_pass_of_hh_alone_is_no_companion_where_there_is_one_of_vv(tmp_path: Path) -> None:
    views = [
        radar_pass("2023-07-09", orbit=38, mode="EW", polarizations=("hh",)),
        radar_pass("2023-07-12"),
        radar_pass("2023-09-09", orbit=38, mode="EW", polarizations=("hh",)),
    ]
    even = {name: np.full(SHAPE, 0.1, np.float32) for name in ("vv", "vh", "hh")}
    scenes = find(write_scenes(tmp_path, [(view, even) for view in views]), REGION, "2023", ["sentinel-1"])
    tree = load(scenes, REGION)
    assert list(tree["sentinel1"]["polarizations"].to_numpy()) == ["hh", "vv+vh", "hh"]
    radar = tree["sentinel1"].to_dataset()
    dates = np.array(["2023-07-10T10:00", "2023-09-10T10:00"], "datetime64[ns]")
    red = xr.full_like(radar["vv"].isel(time=[0, 0]).drop_vars(radar["vv"].coords), 0.1)
    optical = xr.Dataset({"red": red}, {"time": dates, "y": radar["y"], "x": radar["x"]})
    cube = compose(xr.DataTree.from_dict({"sentinel2": optical, "sentinel1": radar}))
    assert list(cube["sentinel1_polarizations"].to_numpy()) == ["vv+vh", "hh"]
    assert list(cube["sentinel1_instrument_mode"].to_numpy()) == ["IW", "EW"]
    assert list(cube["sentinel1_relative_orbit"].to_numpy()) == [37, 38]
    np.testing.assert_allclose(cube["vv"].isel(y=4, x=4), [0.1, np.nan], rtol=1e-6)
    np.testing.assert_allclose(cube["hh"].isel(y=4, x=4), [np.nan, 0.1], rtol=1e-6)
    # What the plan decides from the scenes is what compose decides from the tree.
    assert passes_of_scenes(scenes) == passes_of_node(radar)


@pytest.mark.parametrize("every", ["observation", "month", "season", "year"])
def test_plan_and_cube_are_of_the_same_scenes(world: World, catalog: Path, every: str) -> None:
    scenes = find(catalog, world.region, "2021/2022", ["sentinel-2", "sentinel-1"])
    options = ComposeOptions(every)  # type: ignore[arg-type]
    store = StoreOptions("never-written.zarr")
    plan = make_plan(world.region, scenes, load_model("fusion-unet"), store, compose=options)
    cube = compose(load(scenes, world.region), options)
    table = scenes.of("sentinel-1").table.set_index("id")
    for row, ids in enumerate(plan.scene_ids):
        notes = [json.loads(table.loc[name, "notes"]) for name in ids if name in table.index]
        said = {(note["orbit_state"], note["relative_orbit"]) for note in notes} or {("", 0)}
        here = cube.isel(time=row)
        assert said == {(str(here["sentinel1_orbit_state"].to_numpy()), int(here["sentinel1_relative_orbit"]))}
        if every != "observation":
            assert int(here["sentinel1_dates"]) == len({table.loc[name, "time"] for name in ids if name in table.index})


# Border noise


LAKE = np.s_[40:60, 70:90]
HOLE = np.s_[20:24, 70:74]


def bordered(seed: int = 3) -> tuple[dict[str, npt.NDArray[np.float32]], npt.NDArray[np.bool_]]:
    """Bright ground with a dark lake and a hole amid shadow, cut off on the left behind 14 columns of noise."""
    plain = {name: power.copy() for name, power in ground(seed).items()}
    power = {}
    for name, values in plain.items():
        values[LAKE] *= 10 ** (-25.0 / 10)  # -35 dB
        values[15:29, 65:79] *= 10 ** (-25.0 / 10)
        values[HOLE] = np.nan
        power[name] = plant_border_noise(values, side=20, width=14, level=-40, seed=seed)
    noise = np.isfinite(power["vv"]) & (power["vv"] != plain["vv"]) & np.isfinite(plain["vv"])
    return power, noise


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> Scenes:
    power, _ = bordered()
    path = write_scenes(tmp_path_factory.mktemp("noisy"), [(radar_pass(), power)])
    return find(path, REGION, "2023", ["sentinel-1"])


def test_border_noise_goes_and_dark_water_and_shadow_stay(noisy: Scenes) -> None:
    power, noise = bordered()
    assert noise.sum() > 1000
    kept, cleaned = (radar(noisy, border_noise=on).isel(time=0) for on in (False, True))
    np.testing.assert_array_equal(kept["vv"], power["vv"])
    for name in ("vv", "vh"):
        assert np.isfinite(cleaned[name].to_numpy()[noise]).mean() < 0.001
        inner = np.isfinite(power["vv"])
        inner[:, : 20 + 14 * 4 // 3 + 3] = False  # beyond the noise and the pixel that goes with it
        assert inner[LAKE].all()
        np.testing.assert_array_equal(cleaned[name].to_numpy()[inner], power[name][inner])


def test_at_most_one_pixel_is_lost_behind_the_noise() -> None:
    power, noise = bordered()
    found = border_noise(power["vv"], 10**-3.0, 32)
    wrong = found & ~noise
    behind = np.zeros_like(noise)
    for shift in itertools.product((-1, 0, 1), repeat=2):
        behind |= np.roll(noise, shift, axis=(0, 1))
    assert wrong.sum() > 0
    assert not (wrong & ~behind).any()


def test_border_noise_does_not_depend_on_the_block(noisy: Scenes) -> None:
    whole = radar(noisy)
    for cell in (96, 64, 33, 16):
        xr.testing.assert_identical(radar(noisy, cell=cell), whole)


def test_a_scene_without_border_noise_is_left_as_it_is(tmp_path: Path) -> None:
    power = ground(5)
    power["vv"][:, :30] = power["vh"][:, :30] = np.nan
    power["vv"][LAKE] *= 1e-3
    scenes = find(write_scenes(tmp_path, [(radar_pass(), power)]), REGION, "2023", ["sentinel-1"])
    xr.testing.assert_identical(radar(scenes), radar(scenes, border_noise=False))


def test_noise_reaches_no_further_than_the_reach() -> None:
    power = np.full((40, 200), 1e-5, np.float32)
    power[:, :10] = np.nan
    found = border_noise(power, 10**-3.0, 32)
    assert found[:, 10:42].all()
    assert not found[:, 43:].any()


def test_a_slices_noisy_end_does_not_hide_the_next_slice(tmp_path: Path) -> None:
    first, second = bordered()[0], ground(9)
    views = [radar_pass(slice_number=2), radar_pass(slice_number=3)]
    views[1] = dataclasses.replace(views[1], when=views[0].when.replace(second=25), seed=77)
    scenes = find(write_scenes(tmp_path, [(views[0], first), (views[1], second)]), REGION, "2023", ["sentinel-1"])
    assert scenes.table["time"].nunique() == 1
    node = radar(scenes).isel(time=0)
    _, noise = bordered()
    assert np.isfinite(node["vv"].to_numpy()).all()
    np.testing.assert_array_equal(node["vv"].to_numpy()[noise], second["vv"][noise])
    lined = radar(scenes, border_noise=False).isel(time=0)["vv"].to_numpy()
    np.testing.assert_array_equal(lined[noise], first["vv"][noise])


# Power, looks and decibels


def looks(power: xr.DataArray | npt.NDArray[Any]) -> float:
    values = np.asarray(power, dtype=float)
    return float(values.mean() ** 2 / values.var())


DAYS = ("2023-07-01", "2023-07-13", "2023-07-25", "2023-08-06", "2023-08-18", "2023-10-29")


@pytest.fixture(scope="module")
def repeated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six dates of one orbit, the last far off, and one of another orbit between them that is ten times brighter."""
    scenes = [(radar_pass(day), ground(seed)) for seed, day in enumerate(DAYS)]
    scenes.append((radar_pass("2023-07-14", hour=16, direction="ascending", orbit=101), ground(50, power=1.0)))
    return write_scenes(tmp_path_factory.mktemp("repeated"), scenes)


@pytest.mark.parametrize("dates", [2, 3, 5])
def test_averaging_dates_multiplies_the_looks_and_keeps_the_mean(repeated: Path, dates: int) -> None:
    scenes = find(repeated, REGION, "2023", {"sentinel-1": SensorOptions(orbit=37)})
    single = radar(scenes)["vv"].isel(time=2)
    node = radar(scenes, multilook_dates=dates, multilook_days=60)
    averaged = node["vv"].isel(time=2)
    # 9216 independent pixels: the estimate of looks scatters by about 2 %.
    assert looks(single) == pytest.approx(4.4, rel=0.06)
    assert looks(averaged) == pytest.approx(4.4 * dates, rel=0.06)
    # The mean of 9216 pixels of 4.4 looks and more scatters by 0.5 % at most.
    assert float(averaged.mean()) == pytest.approx(0.1, rel=0.015)
    np.testing.assert_allclose(node["vv_db"].isel(time=2), 10 * np.log10(averaged), rtol=1e-5)


def test_only_near_dates_of_the_same_orbit_are_averaged(repeated: Path) -> None:
    scenes = find(repeated, REGION, "2023", ["sentinel-1"])
    plain, node = radar(scenes)["vv"], radar(scenes, multilook_dates=3)["vv"]
    ascending = int(np.flatnonzero(node["orbit_state"].to_numpy() == "ascending")[0])
    assert ascending == 2
    xr.testing.assert_identical(node.isel(time=ascending), plain.isel(time=ascending))  # alone on its orbit
    xr.testing.assert_identical(node.isel(time=-1), plain.isel(time=-1))  # 72 days away
    expected = plain.isel(time=[0, 1, 3]).astype(float).mean("time")
    np.testing.assert_allclose(node.isel(time=1), expected, rtol=1e-6)


def test_averaging_gives_no_pixels_to_a_date_that_has_none(tmp_path: Path) -> None:
    one, two = ground(1), ground(2)
    one["vv"][:, :50] = np.nan
    two["vv"][:, 70:] = np.nan
    path = write_scenes(tmp_path, [(radar_pass(DAYS[0]), one), (radar_pass(DAYS[1]), two)])
    node = radar(find(path, REGION, "2023", ["sentinel-1"]), multilook_dates=2)["vv"]
    assert np.isnan(node[0, :, :50]).all()
    np.testing.assert_array_equal(node[0, :, 70:], one["vv"][:, 70:])
    np.testing.assert_allclose(node[0, :, 50:70], (one["vv"] + two["vv"])[:, 50:70] / 2, rtol=1e-6)


def test_a_row_knows_the_dates_that_it_was_averaged_with(repeated: Path, tmp_path: Path) -> None:
    options = SensorOptions(orbit=37)
    scenes, fewer = (find(repeated, REGION, time, {"sentinel-1": options}) for time in ("2023", "2023-07"))
    store, model = StoreOptions(str(tmp_path / "x.zarr")), load_model("fusion-unet")
    for dates, same in ((1, True), (3, False)):
        chosen = LoadOptions(radar=RadarOptions(multilook_dates=dates))
        keys = [make_plan(REGION, each, model, store, load=chosen).keys for each in (scenes, fewer)]
        assert keys[0][0] == keys[1][0]  # 1, 13 and 25 July make the first row either way
        assert (keys[0][2] == keys[1][2]) is same  # 6 August joins the third


def test_a_mean_filter_multiplies_the_looks_by_its_pixels_and_keeps_the_mean() -> None:
    power = even_ground(0.1, 4.4, (300, 300), 7)
    smooth = local_mean(power, 5)[10:-10:5, 10:-10:5]  # windows that share no pixel
    assert looks(smooth) == pytest.approx(4.4 * 25, rel=0.1)
    assert smooth.mean() == pytest.approx(0.1, rel=0.01)


def test_lees_filter_smooths_even_ground_keeps_its_mean_and_spares_an_edge() -> None:
    power = even_ground(0.1, 4.4, (300, 300), 8)
    power[:, 150:] *= 10
    smooth = lee_filter(power, 7, 4.4)
    for columns, level in ((np.s_[10:135], 0.1), (np.s_[165:290], 1.0)):
        part = smooth[10:-10, columns]
        assert looks(part) > 4.4 * 8
        assert part.mean() == pytest.approx(level, rel=0.01)
    step = smooth[10:-10].mean(axis=0)
    assert step[152] / step[147] > 7
    blurred = local_mean(power, 7)[10:-10].mean(axis=0)
    assert blurred[152] / blurred[147] < 4


def test_filters_bear_with_gaps_and_fill_none() -> None:
    power = even_ground(0.1, 50.0, SHAPE, 9)
    power[30:50, 30:50] = np.nan
    for smooth in (local_mean(power, 7), lee_filter(power, 7, 50.0)):
        np.testing.assert_array_equal(np.isnan(smooth), np.isnan(power))
        assert np.nanmax(np.abs(smooth / 0.1 - 1)) < 0.6
    np.testing.assert_allclose(local_mean(power, 7)[29, 40], np.nanmean(power[26:33, 37:44]), rtol=1e-5)


@pytest.mark.parametrize("speckle", ["mean", "lee"])
def test_a_filtered_pixel_has_one_value_whichever_block_asked(repeated: Path, speckle: str) -> None:
    scenes = find(repeated, REGION, "2023-07", {"sentinel-1": SensorOptions(orbit=37)})
    options: dict[str, Any] = {"speckle": speckle, "multilook_dates": 2}
    whole = radar(scenes, **options)
    xr.testing.assert_identical(radar(scenes, cell=33, **options), whole)
    lazy = load(scenes, REGION, LoadOptions(cell=16, radar=RadarOptions(**options)))["sentinel1"].to_dataset()
    window = {"y": slice(21, 50), "x": slice(40, 77)}
    xr.testing.assert_identical(lazy.isel(window).compute(), whole.isel(window))
    assert looks(whole["vv"][0]) > 4.4 * 2 * 5


def test_coarser_pixels_average_power_and_not_decibels(tmp_path: Path) -> None:
    power = ground(11, looks=1.0)
    scenes = find(write_scenes(tmp_path, [(radar_pass(), power)]), REGION, "2023", ["sentinel-1"])
    coarse = Region("coarse", GeoBox((16, 16), Affine(60, 0, 500000, 0, -60, 8700000), "EPSG:32633"))
    node = radar(scenes, coarse).isel(time=0)
    blocks = power["vv"].reshape(16, 6, 16, 6).mean(axis=(1, 3))
    np.testing.assert_allclose(node["vv"], blocks, rtol=2e-2)
    np.testing.assert_allclose(node["vv_db"], 10 * np.log10(node["vv"]), rtol=1e-5)
    assert float(node["vv"].mean()) == pytest.approx(0.1, rel=0.05)
    of_decibels = (10 * np.log10(power["vv"])).mean()  # 2.5 dB too low for single looks
    assert 10 * np.log10(0.1) - of_decibels > 2
    assert float(node["vv_db"].mean()) > of_decibels + 2


# Platforms


def test_a_platforms_correction_is_recorded_and_decides_the_row(mixed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = find(mixed, REGION, "2023-07-01", ["sentinel-1"])
    assert set(plain.table["offset"]) == {0.0}
    monkeypatch.setattr("glaciercube.sensors.sentinel1.PLATFORM_DB", {"sentinel-1c": 0.3})
    scenes = find(mixed, REGION, "2023-07-01", ["sentinel-1"])
    notes = [json.loads(text) for text in scenes.table["notes"]]
    recorded = {note["platform"]: note["correction_db"] for note in notes}
    assert recorded == {"sentinel-1a": 0.0, "sentinel-1c": 0.3}
    assert scenes.fingerprint != plain.fingerprint
    before, after, off = (
        radar(each, correct_platform=on) for each, on in ((plain, True), (scenes, True), (scenes, False))
    )
    xr.testing.assert_identical(off, before)
    moved = (after["vv_db"] - before["vv_db"]).isel(y=0, x=0).to_numpy()
    np.testing.assert_allclose(moved, [0, 0.3, np.nan, np.nan, 0], atol=1e-5)
    np.testing.assert_allclose(after["vv"][1] / before["vv"][1], 10**0.03, rtol=1e-6)


def test_a_users_own_correction_stands_in_for_the_recorded_one(mixed: Path) -> None:
    scenes = find(mixed, REGION, "2023-07-01", ["sentinel-1"])
    own = radar(scenes, platform_db={"sentinel-1c": -0.5})
    moved = (own["vv_db"] - radar(scenes)["vv_db"]).isel(y=0, x=0).to_numpy()
    np.testing.assert_allclose(moved, [0, -0.5, np.nan, np.nan, 0], atol=1e-5)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"multilook_dates": 0}, "multilook_dates 0"),
        ({"window": 4}, "window 4"),
        ({"speckle": "frost"}, "unknown speckle filter 'frost'"),
        ({"platform_db": {"sentinel-1e": 0.1}}, "sentinel-1e"),
        ({"platform_db": {"sentinel-1c": float("nan")}}, "nan"),
        ({"border_reach": 0}, "border_reach 0"),
    ],
)
def test_options_that_cannot_be_used_are_refused(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        RadarOptions(**options)


def test_a_configuration_reaches_them() -> None:
    text = """
region: {bbox: [15, 78.3, 15.1, 78.4], resolution: 20}
catalog: planetary-computer
time: "2023"
store: out.zarr
sensors: {sentinel-1: {orbit: 37, polarizations: [vv, vh]}}
load: {radar: {multilook_dates: 3, speckle: lee, platform_db: {sentinel-1c: 0.2}, border_noise: false}}
"""
    config = parse_config(text)
    assert config.load.radar == RadarOptions(3, speckle="lee", platform_db={"sentinel-1c": 0.2}, border_noise=False)
    assert config.sensors["sentinel-1"].orbit == 37
    with pytest.raises(ConfigError, match=r"unknown key 'load.radar.spekle'.*did you mean speckle"):
        parse_config(text.replace("speckle", "spekle"))


@pytest.mark.parametrize("boundary", ["nearest", float("nan")])
@pytest.mark.parametrize("chunks", [(30, 50), (7, 64), (96, 96), ((50, 3, 43), (96,))])
def test_blocks_with_their_neighbours_are_as_dasks_own(chunks: Any, boundary: Any) -> None:
    power = even_ground(0.1, 4.4, SHAPE, 4)
    whole = da.from_array(power, chunks=(96, 96))
    asked: dict[str, Any] = {"depth": 11, "boundary": boundary, "dtype": "float32"}
    expected = da.map_overlap(local_mean, whole, window=23, meta=np.empty((0, 0), "float32"), **asked).compute()
    found = with_neighbours(local_mean, da.from_array(power, chunks=chunks), window=23, **asked)
    assert found.shape == SHAPE
    np.testing.assert_array_equal(found.compute(), expected)
    small = with_neighbours(local_mean, da.from_array(power[:9, :40], chunks=8), window=23, **asked)
    assert small.compute().shape == (9, 40)


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (3, 3), (7, 60)])
@pytest.mark.parametrize(
    "options",
    [
        {"speckle": "mean", "window": 7},
        {"speckle": "lee", "window": 2001},
        {"border_reach": 5000},
    ],
)
def test_filters_may_reach_further_than_the_grid(noisy: Scenes, shape: tuple[int, int], options: Any) -> None:
    small = Region("small", GRID[30 : 30 + shape[0], 18 : 18 + shape[1]])
    plain = {"border_noise": False} if "speckle" in options else {}
    whole = radar(noisy, small, **options, **plain)["vv"].isel(time=0).to_numpy()
    np.testing.assert_array_equal(radar(noisy, small, cell=3, **options, **plain)["vv"].isel(time=0), whole)
    power = radar(noisy, small, border_noise=False)["vv"].isel(time=0).to_numpy()
    if options.get("speckle") == "mean" and max(shape) <= 4:
        mean = power[np.isfinite(power)].mean() if np.isfinite(power).any() else np.nan
        np.testing.assert_allclose(whole, np.where(np.isnan(power), np.nan, mean), rtol=1e-6)
    if "border_reach" in options:
        near = radar(noisy, small, border_reach=100)["vv"].isel(time=0)
        np.testing.assert_array_equal(near, whole)
        assert np.isfinite(whole).sum() < np.isfinite(power).sum() or shape[1] < 3
    assert (np.isfinite(whole) <= np.isfinite(power)).all()


def test_inside_a_swath_borders_cost_nothing(tmp_path: Path) -> None:
    wide = GeoBox((60, 60), Affine(1000, 0, 470000, 0, -1000, 8730000), "EPSG:32633")
    even = {name: np.full((60, 60), 0.1, np.float32) for name in ("vv", "vh")}
    scenes = find(write_scenes(tmp_path, [(radar_pass(), even)], wide), REGION, "2023", ["sentinel-1"])

    def tasks(**options: Any) -> int:
        tree = load(scenes, REGION, LoadOptions(cell=16, radar=RadarOptions(**options)))
        lazy = tree["sentinel1"]["vv"].data
        assert isinstance(lazy, da.Array)
        return len(lazy.__dask_graph__())

    assert tasks(border_noise=True) == tasks(border_noise=False)
    assert GRID.shape == SHAPE
