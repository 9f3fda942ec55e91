"""Areas are counted right, and intervals hold as often as they say."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords
from pyproj import CRS
from shapely.geometry import box

from glaciercube.change import (
    AreaOptions,
    Calibration,
    ErrorCorrelation,
    area_change,
    area_series,
    read_calibrations,
    regional_area,
    regional_change,
    regional_std,
    scene_correlation,
    write_calibrations,
)
from glaciercube.errors import GlaciercubeError, ModelError, OutlineError, StoreError

GRID = GeoBox((60, 80), Affine(10, 0, 500000, 0, -10, 6000000), "EPSG:32645")


def cube() -> xr.Dataset:
    """Three dates; the left half is ice (p 0.9), the right is not (p 0.2); date 1 has a cloud over the top third."""
    p = np.full((3, 60, 80), 0.2)
    p[:, :, :40] = 0.9
    p[2, :, :20] = 0.1
    quality = np.full(p.shape, 3, "uint8")
    quality[1, :20] |= 4
    p[0, 50:, 60:] = np.nan
    times = np.array(["2020-07-01", "2020-08-01", "2021-08-01"], "datetime64[ns]")
    coords = {"time": times, **xr_coords(GRID, crs_coord_name="spatial_ref")}
    dims = ("time", "y", "x")
    return xr.Dataset(
        {"glacier_probability": (dims, p, {"grid_mapping": "spatial_ref"}), "quality": (dims, quality)}, coords=coords
    )


def outlines(**boxes: tuple[float, float, float, float]) -> gpd.GeoDataFrame:
    """Boxes in pixels (left, top, right, bottom)."""
    shapes = [
        box(500000 + 10 * left, 6000000 - 10 * bottom, 500000 + 10 * right, 6000000 - 10 * top)
        for left, top, right, bottom in boxes.values()
    ]
    return gpd.GeoDataFrame({"outline": list(boxes)}, geometry=shapes, crs="EPSG:32645")


def test_area_per_outline_and_date() -> None:
    series = area_series(cube(), outlines(all=(0, 0, 80, 60), west=(0, 0, 20, 60)).to_crs("EPSG:4326"))
    table = series.set_index(["outline", "time"])
    whole = table.loc["all"]
    np.testing.assert_allclose(whole["outline_area_km2"], 0.48, rtol=1e-3)
    np.testing.assert_allclose(whole["area_km2"], [0.24, 0.16, 0.12])
    np.testing.assert_allclose(
        whole["expected_area_km2"],
        [0.9 * 0.24 + 0.2 * 0.22, 0.9 * 0.16 + 0.2 * 0.16, 0.9 * 0.12 + 0.1 * 0.12 + 0.2 * 0.24],
    )
    np.testing.assert_allclose(whole["coverage"], [0.46 / 0.48, 0.32 / 0.48, 1], rtol=1e-3)
    np.testing.assert_allclose(table.loc["west"]["area_km2"], [0.12, 0.08, 0])
    # No calibration belongs to a cube of unknown origin: no interval is made up.
    assert series["lower_km2"].isna().all()


def test_years_take_the_median_of_clear_dates() -> None:
    series = area_series(cube(), outlines(all=(0, 0, 80, 60)), AreaOptions(every="year"))
    np.testing.assert_allclose(series["area_km2"], [0.24, 0.12])
    np.testing.assert_allclose(series["coverage"], 1)
    assert list(series["dates"]) == [2, 1]
    assert list(series["time"].dt.year) == [2020, 2021]


def test_a_window_belongs_to_the_year_of_its_middle() -> None:
    windows = cube()
    # The last one begins in 2020, and most of it lies in 2021.
    starts = np.array(["2020-07-01", "2020-08-01", "2020-12-20"], "datetime64[ns]")
    ends = np.array(["2020-07-31", "2020-08-31", "2021-02-20"], "datetime64[ns]")
    bounds = ("time", "bnds"), np.stack([starts, ends], axis=1)
    windows = windows.assign_coords(time=starts, time_bnds=bounds)
    series = area_series(windows, outlines(all=(0, 0, 80, 60)), AreaOptions(every="year"))
    assert list(series["time"].dt.year) == [2020, 2021]
    np.testing.assert_allclose(series["area_km2"], [0.24, 0.12])
    flat = windows.drop_vars("time_bnds")
    assert list(area_series(flat, outlines(all=(0, 0, 80, 60)), "year")["time"].dt.year) == [2020]
    change = area_change(windows, outlines(all=(0, 0, 80, 60)), 2020, 2021)
    np.testing.assert_allclose(change["change_km2"], [-0.12])


def test_unknown_flags_are_refused() -> None:
    with pytest.raises(GlaciercubeError, match=r"unknown quality flag \['fog'\]"):
        AreaOptions(hidden_by=("cloud", "fog"))


def test_clouds_count_when_asked() -> None:
    series = area_series(cube(), outlines(all=(0, 0, 80, 60)), AreaOptions(hidden_by=()))
    np.testing.assert_allclose(series["area_km2"], [0.24, 0.24, 0.12])


def test_an_outline_partly_on_the_grid_says_so() -> None:
    series = area_series(cube(), outlines(edge=(60, 0, 100, 60)))
    np.testing.assert_allclose(series["in_grid"], 0.5)
    assert (series["outline_area_km2"] == 0.24).all()


def test_outlines_elsewhere_are_refused() -> None:
    far = outlines(far=(5000, 0, 5010, 10))
    with pytest.raises(OutlineError, match=r"none of the 1 outlines meets the grid .* in EPSG:32645\)"):
        area_series(cube(), far)
    # A CRS without a number would fill the screen.
    own = CRS.from_proj4("+proj=laea +lat_0=70 +lon_0=10 +datum=WGS84 +units=m").to_wkt()
    grid = GeoBox((60, 80), GRID.affine, own)
    there = cube().drop_vars("spatial_ref").assign_coords(xr_coords(grid, crs_coord_name="spatial_ref"))
    with pytest.raises(OutlineError, match=r"in a CRS without an EPSG number\)"):
        area_series(there, far)
    with pytest.raises(StoreError, match="no glacier_probability"):
        area_series(cube().drop_vars("glacier_probability"), far)
    assert len(area_series(cube(), pd.concat([far, outlines(here=(0, 0, 9, 9))]))) == 3


def calibrated(scores: Any) -> Calibration:
    """The same scores for glaciers of every share."""
    shares = [share for share in (0.1, 0.6, 0.9) for _ in scores]
    return Calibration("m", "h", (), "observation", tuple(scores) * 3, tuple(shares))


def test_glaciers_are_compared_with_their_like() -> None:
    scores, shares = (5.0,) * 99 + (0.1,) * 99, (0.3,) * 99 + (0.9,) * 99
    mixed = Calibration("m", "h", (), "year", scores, shares)
    assert mixed.quantiles(0.9, 0.2) == (5.0, 5.0)
    assert mixed.quantiles(0.9, 0.95) == (0.1, 0.1)
    # None is like this one: all speak.
    assert mixed.quantiles(0.9, 0.7) == (0.1, 5.0)


def test_regional_area_sums_bounds() -> None:
    series = area_series(
        cube(),
        outlines(a=(0, 0, 40, 60), b=(40, 0, 80, 60)),
        calibration=calibrated(np.linspace(-0.1, 0.1, 99)),
    )
    total = regional_area(series)
    by_hand = series.groupby("time")[["area_km2", "lower_km2", "upper_km2"]].sum()
    np.testing.assert_allclose(total[["area_km2", "lower_km2", "upper_km2"]], by_hand)
    assert (total["lower_km2"] < total["area_km2"]).all()
    assert (total["upper_km2"] > total["area_km2"]).all()


def test_glaciers_that_err_apart_make_a_region_surer() -> None:
    series = area_series(
        cube().isel(time=[2]),
        outlines(a=(0, 0, 40, 60), b=(40, 0, 80, 60)),
        calibration=calibrated(np.linspace(-0.1, 0.1, 99)),
    )
    # Of outlines whose errors have nothing to do with each other the squares are summed.
    half = {one: regional_area(series, correlation=one) for one in (0.0, 0.5, 1.0)}
    down = series["area_km2"] - series["lower_km2"]
    for one, total in half.items():
        by_hand = np.sqrt((1 - one) * (down**2).sum() + one * down.sum() ** 2)
        np.testing.assert_allclose(total["area_km2"] - total["lower_km2"], by_hand)
    # A calibration whose glaciers were not of shared scenes does not know, and takes the cautious end.
    pd.testing.assert_frame_equal(regional_area(series), half[1.0])


def test_a_regions_error_is_by_the_distance_of_its_pixels() -> None:
    whole, halves = outlines(all=(0, 0, 80, 60)), outlines(a=(0, 0, 40, 60), b=(40, 0, 80, 60))
    correlation = ErrorCorrelation((0.0, 300.0), (0.4, 0.6))
    one, two = (regional_std(cube(), where, correlation=correlation) for where in (whole, halves))
    np.testing.assert_allclose(one["std_km2"], two["std_km2"])
    np.testing.assert_allclose(one["std_km2"], one["independent_std_km2"])
    assert (two["std_km2"] > 1.05 * two["independent_std_km2"]).all()
    calibration = replace(calibrated(np.zeros(19)), variogram=((0.0, 0.4), (300.0, 0.6)))
    each = area_series(cube(), whole, calibration=calibration)
    np.testing.assert_allclose(each["std_km2"], one["std_km2"])
    with pytest.raises(ModelError, match="was not measured"):
        regional_std(cube(), whole)


def test_change_is_of_pixels_that_both_times_show() -> None:
    here = outlines(west=(0, 0, 40, 60))
    change = area_change(cube(), here, 2020, 2021).iloc[0]
    assert change["change_km2"] == pytest.approx(-0.12)
    assert change["rate_km2_per_year"] == pytest.approx(-0.12 / (366 / 365.25))
    assert np.isnan(change["lower_km2"])
    calibration = replace(calibrated(np.linspace(-1, 1, 99)), quantity="change")
    clouded = area_change(
        cube(), here, "2020-08-01", "2021-08-01", AreaOptions(every="observation"), calibration=calibration
    ).iloc[0]
    # A third is hidden the first time: it has no change, and may have any.
    assert clouded["change_km2"] == pytest.approx(-0.08)
    assert clouded["coverage"] == pytest.approx(2 / 3)
    scale = clouded["doubt_km2"] + 0.02 * 0.16  # 95th of 99 scores
    assert clouded["lower_km2"] == pytest.approx(-0.08 - 45 / 49 * scale - 0.08)
    assert clouded["upper_km2"] == pytest.approx(-0.08 + 45 / 49 * scale + 0.08)
    both = area_change(
        cube(), outlines(a=(0, 0, 20, 60), b=(20, 0, 40, 60)), "2020-08-01", "2021-08-01",
        AreaOptions(every="observation"), calibration=calibration,
    )  # fmt: skip
    total = regional_change(both, correlation=0.0).iloc[0]
    assert total["change_km2"] == pytest.approx(-0.08)
    hidden = 0.04
    down = both["change_km2"] - both["lower_km2"] - hidden
    assert total["lower_km2"] == pytest.approx(-0.08 - np.sqrt((down**2).sum()) - 2 * hidden)
    assert total["lower_rate"] == pytest.approx(total["lower_km2"] / (365 / 365.25))
    with pytest.raises(StoreError, match="no row of 2019"):
        area_change(cube(), here, 2019, 2021)
    with pytest.raises(StoreError, match="earlier and a later"):
        area_change(cube(), here, 2021, 2020)
    each = AreaOptions(every="observation")
    for when in ("yesterday", "", "2021-13-01"):
        with pytest.raises(StoreError, match=r"is no date: write it as 2021-08-14"):
            area_change(cube(), here, when, "2021-08-01", each)
    # A zone is no matter, and a number is a year.
    zoned = area_change(cube(), here, "2020-07-31T22:00-02:00", 2022, each)
    assert list(zoned["first"].astype(str) + zoned["last"].astype(str)) == ["2020-08-012021-08-01"]
    with pytest.raises(GlaciercubeError, match="nothing of changes"):
        area_change(cube(), here, 2020, 2021, calibration=calibrated(np.zeros(19)))


def test_the_command_prints_changes_and_their_sum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from click.testing import CliRunner

    from glaciercube.cli import main

    monkeypatch.setattr("glaciercube.store.open_store", lambda *_, **__: cube())
    where = tmp_path / "outlines.gpkg"
    outlines(a=(0, 0, 20, 60), b=(20, 0, 40, 60)).to_file(where)
    (tmp_path / "store.zarr").mkdir()
    arguments = ["change", str(tmp_path / "store.zarr"), str(where), "2020", "2021"]
    each = CliRunner().invoke(main, [*arguments, "--csv", str(tmp_path / "c.csv")])
    assert each.exit_code == 0, each.output
    assert "no interval" in each.output
    assert pd.read_csv(tmp_path / "c.csv")["change_km2"].sum() == pytest.approx(-0.12)
    whole = CliRunner().invoke(main, [*arguments, "--total"])
    assert "-0.120" in whole.output
    assert CliRunner().invoke(main, [*arguments[:3], "then", "2021"]).exit_code == 1


def test_hidden_ground_widens_the_interval_by_all_of_it() -> None:
    calibration = calibrated(np.zeros(99))
    series = area_series(cube(), outlines(all=(0, 0, 80, 60)), calibration=calibration)
    np.testing.assert_allclose(series["lower_km2"], series["area_km2"])
    np.testing.assert_allclose(series["upper_km2"] - series["area_km2"], [0.02, 0.16, 0], atol=1e-9)


def test_intervals_hold_as_often_as_they_say() -> None:
    """Split-conformal coverage over many calibrations, for errors that are skewed and far from normal."""
    rng = np.random.default_rng(1)
    held = []
    for _ in range(400):
        scores = rng.exponential(0.05, 100) - 0.02
        low, high = calibrated(scores).quantiles(0.9, 0.1)
        fresh = rng.exponential(0.05, 50) - 0.02
        held.append(((fresh >= low) & (fresh <= high)).mean())
    # Nominal 0.9, and above it by at most 2 / (n + 1).
    assert 0.9 - 0.01 < np.mean(held) < 0.9 + 2 / 101 + 0.01


def test_glaciers_of_one_scene_do_not_count_as_many() -> None:
    """Coverage for a glacier of a new scene, where a scene has up to 30 glaciers that err alike."""
    rng = np.random.default_rng(4)

    def draw(scenes: int) -> tuple[list[float], list[int]]:
        counts = rng.choice([1, 2, 30], scenes)
        scores = [rng.normal() * (3 if n == 1 else 1) + 0.1 * rng.normal(size=n) for n in counts]
        return list(np.concatenate(scores)), list(np.repeat(np.arange(scenes), counts))

    held: dict[str, list[bool]] = {"scenes": [], "glaciers": []}
    for _ in range(60):
        scores, scenes = draw(60)
        fresh, of = (np.array(found) for found in draw(40))
        drawn = np.array([rng.choice(fresh[of == scene]) for scene in np.unique(of)])
        for name, known in (("scenes", tuple(scenes)), ("glaciers", ())):
            one = Calibration("m", "h", (), "year", tuple(scores), (0.1,) * len(scores), scenes=known)
            low, high = one.quantiles(0.9, 0.1)
            held[name] += list((drawn >= low) & (drawn <= high))
    # 2400 glaciers, in 60 draws of the calibration.
    assert 0.89 < np.mean(held["scenes"]) < 0.945
    assert np.mean(held["glaciers"]) < 0.87  # as if all of them were independent: a tenth of the scenes speaks


def test_scenes_of_one_range_weigh_as_one() -> None:
    scores = (*np.zeros(20), *np.full(200, 5.0))
    scenes, ranges = tuple(range(220)), (*range(20), *([99] * 200))
    alone = Calibration("m", "h", (), "year", scores, (0.1,) * 220, scenes=scenes)
    assert alone.quantiles(0.8, 0.1)[1] == 5
    grouped = replace(alone, ranges=ranges)
    assert grouped.quantiles(0.8, 0.1)[1] == 0  # one range of 21 says 5
    with pytest.raises(ModelError, match="of 21 scenes"):
        grouped.quantiles(0.95, 0.1)
    with pytest.raises(GlaciercubeError, match="ranges only beside scenes"):
        Calibration("m", "h", (), "year", (0.0,), (0.1,), ranges=(1,))


def test_the_correlation_of_a_scenes_glaciers_is_found() -> None:
    rng = np.random.default_rng(5)
    scenes = np.repeat(np.arange(300), rng.integers(1, 6, 300))
    for shared in (0.0, 0.6):
        errors = np.sqrt(shared) * rng.normal(size=300)[scenes] + np.sqrt(1 - shared) * rng.normal(size=scenes.size)
        assert scene_correlation(errors**3, scenes) == pytest.approx(shared, abs=0.1)  # long tails do no harm
    assert scene_correlation([0.1, 0.2], [0, 1]) == 1


def test_too_few_glaciers_carry_no_interval() -> None:
    with pytest.raises(ModelError, match=r"10 calibration glaciers .* on at least 19 such"):
        Calibration("m", "h", (), "year", (0.0,) * 10, (0.6,) * 10).quantiles(0.9, 0.6)
    calibrated(np.zeros(19)).quantiles(0.9, 0.6)


def test_calibrations_survive_json(tmp_path: Path) -> None:
    one = Calibration("m", "h", ("optical", "radar"), "year", (0.1, 0.25), (0.5, 0.75), "made up")
    more = replace(one, quantity="change", scenes=(1, 1), correlation=0.3, variogram=((0.0, 0.5), (-1.0, 0.1)))
    assert read_calibrations(write_calibrations([one, more], tmp_path / "c.json")) == [one, more]
    assert more.pixel_correlation == ErrorCorrelation((0.0, math.inf), (0.5, 0.1))
    (tmp_path / "c.json").write_text("[{}]")
    with pytest.raises(ModelError, match="not a file of calibrations"):
        read_calibrations(tmp_path / "c.json")
