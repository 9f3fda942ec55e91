"""Light, air, optics, clouds and radar of the simulated world."""

from __future__ import annotations

import dataclasses
from typing import Literal, TypedDict

import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr
from conftest import FULL

from glaciercube.simulate.clouds import SCL, add_clouds
from glaciercube.simulate.ground import ground_reflectance
from glaciercube.simulate.illumination import cast_shadow, illuminate
from glaciercube.simulate.optical import LOWEST, render_optical
from glaciercube.simulate.radar import render_radar
from glaciercube.simulate.sequence import SequenceOptions, draw_sequence
from glaciercube.simulate.spectra import BANDS, Level
from glaciercube.simulate.surface import LAKE, LAND, Surface


class Sun(TypedDict):
    """Where the sun stands, degrees."""

    sun_azimuth: float
    sun_elevation: float


LEVELS: tuple[Level, ...] = ("boa", "toa")
SUN = Sun(sun_azimuth=150.0, sun_elevation=45.0)


def flat(size: int = 96, resolution: float = 10.0) -> Surface:
    """Level rock."""
    shape = (size, size)
    return Surface(
        resolution=resolution,
        elevation=np.full(shape, 1000, dtype=np.float32),
        ice=np.zeros(shape, dtype=bool),
        debris=np.zeros(shape, dtype=np.float32),
        snow=np.zeros(shape, dtype=np.float32),
        water=np.full(shape, LAND, dtype=np.uint8),
        turbidity=np.zeros(shape, dtype=np.float32),
    )


def half(name: Literal["snow", "water"]) -> Surface:
    """Level ground, its eastern half under snow or a clear lake."""
    east = np.zeros((96, 96), dtype=bool)
    east[:, 48:] = True
    if name == "snow":
        return dataclasses.replace(flat(), snow=east.astype(np.float32))
    return dataclasses.replace(flat(), water=np.where(east, LAKE, LAND).astype(np.uint8))


def bands(scene: xr.Dataset) -> npt.NDArray[np.float32]:
    return np.stack([scene[name].to_numpy() for name in BANDS])


@pytest.mark.parametrize(
    ("azimuth", "rows", "cols"), [(0, 1, 0), (90, 0, -1), (180, -1, 0), (270, 0, 1), (135, -1, -1)]
)
def test_a_wall_shades_the_side_away_from_the_sun_as_far_as_it_is_high(azimuth: float, rows: int, cols: int) -> None:
    elevation = np.zeros((101, 101), dtype=np.float32)
    elevation[46:55, 46:55] = 200
    dark = cast_shadow(elevation, 10.0, azimuth, 45.0)
    reach = round(20 / np.hypot(rows, cols))  # 200 m at 45 degrees, in steps along the diagonal or the axis
    start = 50 + 5 * np.array([rows, cols])
    for step in range(1, reach - 1):
        assert dark[tuple(start + step * np.array([rows, cols]))] == 1
    assert dark[tuple(start + (reach + 3) * np.array([rows, cols]))] == 0
    assert dark[tuple(50 - 8 * np.array([rows, cols]))] == 0


def test_level_ground_gets_the_whole_sun_and_slopes_what_their_angle_says() -> None:
    y, x = np.mgrid[:60, :60].astype(np.float32) * 10
    level = illuminate(np.zeros_like(y), 10.0, 150.0, 40.0)
    np.testing.assert_allclose(level.direct, 1, rtol=1e-5)
    assert not level.shadow.any()
    tilt = np.radians(20)
    south_facing = illuminate(-y * np.float32(np.tan(tilt)), 10.0, 180.0, 40.0)
    expected = np.cos(np.radians(50) - tilt) / np.cos(np.radians(50))
    np.testing.assert_allclose(south_facing.direct[5:-5, 5:-5], expected, rtol=1e-3)
    assert illuminate(-x * np.float32(np.tan(tilt)), 10.0, 270.0, 40.0).direct[30, 30] < 0.6  # turned away, east


@pytest.mark.parametrize("resolution", [10.0, 23.0, 60.0])
@pytest.mark.parametrize("level", LEVELS)
def test_reflectance_is_valid_and_reproducible(resolution: float, level: Level) -> None:
    surface = dataclasses.replace(half("snow"), resolution=resolution)
    first = render_optical(surface, **SUN, level=level, seed=3)
    xr.testing.assert_identical(first, render_optical(surface, **SUN, level=level, seed=3))
    values = bands(first)
    assert values.dtype == np.float32
    assert np.isfinite(values).all()
    assert values.min() >= np.float32(LOWEST)
    assert values.max() < 2


def test_edges_are_mixed_and_swir_is_coarser() -> None:
    widths: dict[str, list[int]] = {"red": [], "swir16": []}
    for seed in range(8):
        scene = render_optical(half("snow"), **SUN, level="boa", seed=seed)
        for name, found in widths.items():
            profile = scene[name].median("y").to_numpy()
            low, high = np.median(profile[:30]), np.median(profile[-30:])
            share = (profile - low) / (high - low)
            found.append(((share > 0.1) & (share < 0.9))[40:56].sum())
    assert 1 <= np.mean(widths["red"]) <= 3
    assert np.mean(widths["red"]) + 0.5 < np.mean(widths["swir16"]) <= 6


def test_the_atmosphere_veils_water_and_dims_snow() -> None:
    for seed in range(5):
        water = [render_optical(half("water"), **SUN, level=level, seed=seed) for level in LEVELS]
        snow = [render_optical(half("snow"), **SUN, level=level, seed=seed) for level in LEVELS]
        lake = [float(scene["blue"][:, 60:].median()) for scene in water]
        assert lake[1] > lake[0] + 0.02
        assert float(snow[1]["blue"][:, 60:].median()) < float(snow[0]["blue"][:, 60:].median())


def test_shade_is_dark_blue_and_not_black() -> None:
    elevation = flat().elevation.copy()
    elevation[:, 60:] += 600
    surface = dataclasses.replace(flat(), elevation=elevation, snow=np.ones((96, 96), dtype=np.float32))
    ratios = []
    for seed in range(8):
        scene = render_optical(surface, sun_azimuth=90.0, sun_elevation=40.0, level="toa", seed=seed)
        values, dark = bands(scene), scene["cast_shadow"].to_numpy()
        ratios.append(np.median(values[:, dark], axis=1) / np.median(values[:, :, 70:], axis=(1, 2)))
    blue, nir = np.median(ratios, axis=0)[[0, 3]]
    assert 0.2 < blue < 0.6  # the table: 0.27 to 0.56
    assert 0.05 < nir < 0.3  # the table: 0.10 to 0.26


def test_rock_stays_from_date_to_date_and_snow_does_not() -> None:
    first, second = (ground_reflectance(half("snow"), seed=seed, ground_seed=9) for seed in (1, 2))
    rock = np.corrcoef(np.log(first[2, :, :44]).ravel(), np.log(second[2, :, :44]).ravel())[0, 1]
    snow = np.corrcoef(np.log(first[2, :, 52:]).ravel(), np.log(second[2, :, 52:]).ravel())[0, 1]
    assert rock > 0.5 > abs(snow)
    assert not np.allclose(ground_reflectance(half("snow"), seed=1)[2], first[2])


def test_clouds_cover_what_was_asked_and_throw_shadows_away_from_the_sun() -> None:
    clear = render_optical(flat(160, 20.0), sun_azimuth=90.0, sun_elevation=45.0, level="boa", seed=1)
    right = seen = 0
    for seed in range(12):
        scene = add_clouds(clear, cover=0.2, sun_azimuth=90.0, sun_elevation=45.0, level="boa", seed=seed)
        assert float(scene["cloud"].mean()) == pytest.approx(0.2, abs=0.06)
        dark = scene["cloud_shadow"].to_numpy()
        assert not (dark & scene["cloud"].to_numpy()).any()
        if dark.mean() < 0.01:  # a cloud high up or near the rim throws its shadow out of sight
            continue
        seen += 1
        assert float(scene["nir"].where(dark).median()) < 0.9 * float(clear["nir"].median())
        cloud = scene["cloud"].to_numpy()
        overlap = [(cloud[:, shift:] & dark[:, : cloud.shape[1] - shift]).sum() for shift in range(10, 100)]
        against = [(cloud[:, : cloud.shape[1] - shift] & dark[:, shift:]).sum() for shift in range(10, 100)]
        right += max(overlap) > max(against)
    assert seen > 6
    assert right >= seen - 2


def test_no_cloud_leaves_the_bands_alone_and_classes_are_mostly_right() -> None:
    surface = half("snow")
    lake = np.where(np.arange(96)[:, None] > 64, LAKE, LAND) * np.ones(96, dtype=int)
    surface = dataclasses.replace(
        surface, water=lake.astype(np.uint8), snow=np.where(lake == LAKE, 0, surface.snow).astype(np.float32)
    )
    right: dict[str, list[float]] = {"snow": [], "water": [], "bare": []}
    for seed in range(12):
        clear = render_optical(surface, **SUN, level="boa", seed=seed)
        scene = add_clouds(clear, cover=0, **SUN, level="boa", seed=seed)
        np.testing.assert_array_equal(bands(scene), bands(clear))
        assert not scene["cloud"].any()
        scl = scene["scl"].to_numpy()
        right["snow"].append((scl[:60, 54:] == SCL["snow"]).mean())
        right["water"].append((scl[70:] == SCL["water"]).mean())
        right["bare"].append((scl[:60, :42] == SCL["bare"]).mean())
    assert all(np.mean(shares) > 0.6 for shares in right.values())
    assert min(right["snow"]) < 0.98  # bright snow is sometimes called cloud


def test_speckle_has_the_looks_of_the_product_and_is_correlated() -> None:
    looks, neighbour = [], []
    for seed in range(6):
        power = render_radar(half("water"), orbit="ascending", seed=seed)["vv"].to_numpy()[:, 60:]
        power = power[10:-10, 10:-10]
        looks.append(power.mean() ** 2 / power.var())
        neighbour.append(np.corrcoef(power[:, 1:].ravel(), power[:, :-1].ravel())[0, 1])
    assert 2.5 < np.median(looks) < 6  # the lake's own texture takes some
    assert 0.2 < np.median(neighbour) < 0.8


def test_radar_geometry_follows_the_orbit() -> None:
    elevation = flat().elevation.copy()
    ridge = np.clip(600 - np.abs(np.arange(96) - 48) * 30.0, 0, None)  # 72 degrees on both sides, north to south
    surface = dataclasses.replace(flat(), elevation=(elevation + ridge).astype(np.float32))
    west, east = slice(30, 46), slice(50, 66)
    ascending = render_radar(surface, orbit="ascending", seed=1)  # looks east
    descending = render_radar(surface, orbit="descending", seed=1)
    assert ascending["layover"][20:-20, west].mean() > 0.8
    assert ascending["radar_shadow"][20:-20, east].mean() > 0.8
    assert descending["layover"][20:-20, east].mean() > 0.8
    assert descending["radar_shadow"][20:-20, west].mean() > 0.8
    level = render_radar(flat(), orbit="ascending", seed=1)
    assert not level["layover"].any()
    assert not level["radar_shadow"].any()
    assert np.isfinite(level["vv"]).all()


def test_backscatter_ranks_the_classes() -> None:
    def decibel(surface: Surface, part: slice) -> float:
        drawn = [render_radar(surface, orbit="ascending", seed=seed)["vv"].to_numpy()[:, part] for seed in range(30)]
        return float(10 * np.log10(np.median(np.concatenate(drawn))))

    rock, water, snow = (
        decibel(flat(), slice(0, 96)),
        decibel(half("water"), slice(54, 96)),
        decibel(half("snow"), slice(54, 96)),
    )
    assert -13 < rock < -7
    assert water < rock - 5
    assert snow < rock - 2


def test_a_scene_is_complete_and_honest_about_the_past() -> None:
    options = SequenceOptions(size=96, gaps=False, stale=14.0)
    scene = draw_sequence(1, options)
    inputs = {*BANDS, "scl", "vv", "vh", "elevation", "coherence", "elevation_change", "velocity"}
    assert set(scene.data_vars) == {*inputs, "ground", "glaciers", "cloud", "cloud_shadow", "cast_shadow"}
    assert scene["y"][0] > scene["y"][-1]
    on_ice = np.isin(scene["ground"].isel(time=0), (1, 2))
    np.testing.assert_array_equal(on_ice, scene["glaciers"] > 0)
    fresh = draw_sequence(1, dataclasses.replace(options, stale=0.0))
    np.testing.assert_array_equal(fresh["red"], scene["red"])  # the age of the elevation model changes nothing else
    lowered = scene["elevation"] - fresh["elevation"]
    assert float(lowered.where(scene["glaciers"] > 0).median()) > 5  # metres of ice since lost
    assert abs(float(lowered.where(scene["glaciers"] == 0).median())) < 1


def test_the_fixed_band_ratio_does_on_clean_ice_about_what_it_does_in_truth() -> None:
    found = []
    # The quick form draws the places of the full form that hold clean ice enough.
    for seed in range(30) if FULL else (2, 3, 5, 20, 23, 27):
        options = SequenceOptions(size=96, level="toa", cloud_cover=0.0, gaps=False, layers=())
        scene = draw_sequence(seed, options).isel(time=0)
        ground = scene["ground"].to_numpy()
        glacier = np.isin(ground, (1, 2))
        debris, off_ice = (ground[glacier] == 2).mean() if glacier.any() else 1.0, (ground == 3).mean()
        if debris > 0.15 or off_ice > 0.08 or glacier.mean() < 0.1:
            continue
        guess = ((scene["red"] / scene["swir16"] > 2.8) & (scene["blue"] > 0.15)).to_numpy()
        found.append((guess & glacier).sum() / (guess | glacier).sum())
    assert len(found) > 4
    assert 0.6 < np.median(found) < 0.92
