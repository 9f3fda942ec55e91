"""Chips from a cube and an inventory: what is read, what the labels say, and how far they are trusted."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask.array as da
import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import rasterio
import shapely
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords
from rasterio import features
from shapely.geometry import shape

from glaciercube.catalog import SensorOptions, find
from glaciercube.cube import compose, load
from glaciercube.errors import CubeError, GlaciercubeError, OutlineError
from glaciercube.evaluation.predict import cases_of
from glaciercube.models import load_model
from glaciercube.models.chips import UNKNOWN
from glaciercube.region import Region, read_outlines
from glaciercube.training.folds import FoldOptions, make_folds
from glaciercube.training.inventory import outline_date, read_inventory
from glaciercube.training.sampling import SampledChips, SampleOptions, sample_chips
from glaciercube.training.sites import site_of
from glaciercube.training.truth import TruthOptions, label_window, labels_of
from glaciercube.training.windows import WindowOptions

GRID = GeoBox((120, 160), rasterio.Affine(20.0, 0.0, 500_000.0, 0.0, -20.0, 5_000_000.0), "EPSG:32632")
SHAPE = (120, 160)
TIMES = np.array(["2016-08-01", "2018-08-01", "2020-08-01"], "datetime64[ns]")
SMALL = WindowOptions(size=32, stride=16, negatives=0.25)


class Tally:
    """Which blocks of an array were computed."""

    def __init__(self) -> None:
        self.blocks: list[tuple[int, ...]] = []

    def __call__(self, block: npt.NDArray[Any], block_info: Any = None) -> npt.NDArray[Any]:
        if block_info:
            self.blocks.append(tuple(block_info[0]["chunk-location"]))
        return block


def make_cube(tally: Tally | None = None, flags: npt.NDArray[np.uint8] | None = None) -> xr.Dataset:
    shape = (len(TIMES), *SHAPE)
    rng = np.random.default_rng(3)
    red = da.from_array(rng.uniform(0, 1, shape).astype(np.float32), chunks=(1, 32, 32))
    if tally is not None:
        red = red.map_blocks(tally, dtype=np.float32, meta=np.empty((0, 0, 0), np.float32))
    named = {
        "red": (("time", "y", "x"), red),
        "vv_db": (("time", "y", "x"), da.zeros(shape, np.float32, chunks=(1, 32, 32))),
        "slope": (("y", "x"), da.full(SHAPE, 12.0, dtype=np.float32, chunks=(32, 32))),
        "optical_flags": (
            ("time", "y", "x"),
            da.from_array(np.ones(shape, np.uint8) if flags is None else flags, chunks=(1, 32, 32)),
        ),
        "mine": (("y", "x"), da.zeros(SHAPE, np.float32, chunks=(32, 32))),
    }
    return xr.Dataset(named, coords={"time": TIMES, **xr_coords(GRID)}, attrs={"reflectance": "surface"})


def at(row: float, column: float) -> tuple[float, float]:
    x, y = GRID.affine * (column, row)
    return float(x), float(y)


def polygon(*points: tuple[float, float]) -> shapely.Polygon:
    return shapely.Polygon([at(*point) for point in points])


def inventory(**columns: Any) -> gpd.GeoDataFrame:
    """Two glaciers of RGI 7."""
    shapes = [
        polygon((10, 10), (12.3, 60), (70.2, 50), (50, 12.1)),
        polygon((80, 100), (80, 130), (112, 125), (110, 104)),
    ]
    known = {"rgi_id": ["a", "b"], "src_date": ["2018-08-01T00:00:00", "2018-08-01T00:00:00"]}
    return gpd.GeoDataFrame(known | columns, geometry=shapes, crs=str(GRID.crs))


def drawn(**options: Any) -> SampledChips:
    return sample_chips(make_cube(), inventory(), SampleOptions(windows=SMALL, **options))


def test_a_chip_reads_its_window_and_nothing_else() -> None:
    tally = Tally()
    chips = sample_chips(make_cube(tally), inventory(), SampleOptions(windows=SMALL))
    assert len(chips.sites) == len(chips) > 30
    assert chips.summary()["chips"] == len(chips)
    make_folds(chips, FoldOptions("places", validation=False, buffer=50.0))
    assert tally.blocks == []
    window, days = chips.drawn[7]
    chip = chips[7]
    rows = range(window.row // 32, (window.row + 31) // 32 + 1)
    columns = range(window.column // 32, (window.column + 31) // 32 + 1)
    assert sorted(tally.blocks) == [(days[0], row, column) for row in rows for column in columns]
    cube = make_cube().compute()
    expected = cube["red"][days[0], window.row : window.row + 32, window.column : window.column + 32]
    np.testing.assert_array_equal(chip.variables["red"][0], expected)
    assert chip.variables["slope"].shape == (32, 32)
    assert "mine" not in chip.variables
    assert "optical_flags" not in chip.variables


def test_labels_are_glacier_where_the_middle_of_a_pixel_lies_in_an_outline() -> None:
    chips = drawn()
    outlines = inventory()
    for index in (0, len(chips) // 2, len(chips) - 1):
        chip, (window, _) = chips[index], chips.drawn[index]
        rows, columns = np.mgrid[window.row : window.row + 32, window.column : window.column + 32] + 0.5
        x, y = 500_000.0 + 20.0 * columns, 5_000_000.0 - 20.0 * rows
        held = [shapely.contains_xy(polygon_, x, y) for polygon_ in outlines.geometry]
        np.testing.assert_array_equal(chip.label[0], np.logical_or(*held))
        np.testing.assert_array_equal(chip.glaciers, np.select(held, [1, 2], 0))
    assert chips.labels == {
        "other": ("other", "seasonal_snow", "water"),
        "glacier": ("clean_ice", "debris_covered_ice"),
    }


def test_sites_are_those_of_the_chips() -> None:
    chips = drawn()
    site, chip = chips.sites[4], chips[4]
    assert site == site_of(chip)
    assert chip.centre is not None
    assert shapely.Polygon(site.footprint).contains(shapely.Point(chip.centre))
    ice = int((chip.label == 1).sum()) * 400 / 1e6
    assert chip.attributes["glacier_km2"] == pytest.approx(ice, abs=0.02)
    again = pickle.loads(pickle.dumps(chips))  # noqa: S301 - our own bytes: processes that read ahead send chips so
    np.testing.assert_array_equal(again[4].variables["red"], chip.variables["red"])
    assert chips.take([4, 2])[0].name == chip.name
    assert [c.name for c in chips[3:5]] == [chips[3].name, chip.name]


HALF = gpd.GeoDataFrame(
    {"id": ["half"], "src_date": ["2010-08-01"]},
    geometry=[polygon((-80, -80), (-80, 60), (240, 60), (240, -80))],
    crs=str(GRID.crs),
)


def profile(time: str, **options: Any) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """Labels and weights along a row across a straight edge at column 60 of outlines of August 2010."""
    truth = label_window(
        GRID[40:60, 20:100],
        np.array([time], "datetime64[s]"),
        read_inventory(HALF, GRID),
        TruthOptions(**options),
    )
    return truth.label[0, 10], truth.weight[0, 10]


def test_old_outlines_weigh_less_near_their_edge() -> None:
    depth = 20.0 * (np.arange(40)[::-1] + 0.5)
    label, weight = profile("2020-08-01")
    assert label[:40].all()
    assert not label[40:].any()
    expected = 0.5 ** (10 / 20) * (1.0 - np.exp(-depth / 70.0))
    expected[-1] *= 0.5
    np.testing.assert_allclose(weight[:40], expected, rtol=1e-3)
    np.testing.assert_allclose(weight[41:], 0.5 ** (10 / 20), rtol=1e-3)
    # Outlines that are newer than the image are too small: what lies outside them may have been ice.
    before = profile("2000-08-01")[1]
    np.testing.assert_allclose(before[40:], weight[:40][::-1], rtol=1e-3)
    np.testing.assert_allclose(before[:39], 0.5 ** (10 / 20), rtol=1e-3)
    np.testing.assert_array_equal(profile("2010-08-01", boundary=0.0)[1], 1.0)
    np.testing.assert_allclose(profile("2020-08-01", retreat=0.0, half_life=None, boundary=0.0)[1], 1.0)


def test_scores_count_what_old_outlines_are_more_likely_right_than_wrong_about() -> None:
    # Ten years at 7 m a year: half of the margins have passed 49 m, before the third pixel's middle.
    window, time = GRID[40:60, 20:100], np.array(["2020-08-01"], "datetime64[s]")
    truth = label_window(window, time, read_inventory(HALF, GRID), TruthOptions())
    np.testing.assert_array_equal(np.flatnonzero(~truth.sure[0, 10]), [38, 39, 40])
    assert truth.weight[truth.sure].max() < 1
    chip = sample_chips(make_cube(), inventory(src_date=["1998-08-01"] * 2), SampleOptions(windows=SMALL))[0]
    assert (chip.weight < 1).all()
    assert chip.clear[chip.label != UNKNOWN].any()
    assert not chip.clear[chip.weight == 0].any()
    bands = {name: np.full(chip.label.shape, value, np.float32) for name, value in (("green", 0.6), ("swir16", 0.1))}
    case, *_ = cases_of(load_model("ndsi"), [replace(chip, variables=bands)])
    assert case.counted.any()
    assert (case.counted == (chip.clear[0] & (chip.label[0] != UNKNOWN))).all()


def test_ground_that_outlines_do_not_speak_of_is_unknown() -> None:
    label, weight = profile("2010-08-01", boundary=2.0, boundary_weight=0.0)
    assert (label[38:42] == UNKNOWN).all()
    assert (weight[38:42] == 0).all()
    assert (label[[37, 42]] == [1, 0]).all()
    label, _ = profile("2010-08-01", beyond=100.0)
    assert (label[40:45] == 0).all()
    assert (label[45:] == UNKNOWN).all()
    label, _ = profile("2041-08-01")
    assert (label == UNKNOWN).all()


def test_outlines_too_old_for_every_image_are_refused_and_dates_too_old_left_out() -> None:
    with pytest.raises(OutlineError, match="more than 1 years from the outlines"):
        sample_chips(make_cube(), HALF, SampleOptions(windows=SMALL, truth=TruthOptions(max_age=1.0)))
    chips = sample_chips(make_cube(), HALF, SampleOptions(windows=SMALL, truth=TruthOptions(max_age=9.0)))
    assert chips.summary()["dates"] == ["2016-08-01", "2018-08-01"]
    assert "1 of 3 dates are more than 9 years from all outlines" in chips.messages
    assert chips[0].attributes["outline_age"] == [6.0]
    with pytest.raises(CubeError, match="no image of the months"):
        sample_chips(make_cube(), HALF, SampleOptions(windows=SMALL, months=(2, 3)))


def test_dates_of_inventories_are_understood() -> None:
    def day(value: Any, end: Any = None) -> str:
        return str(outline_date(value, end))[:10]

    assert day("20001030", "-9999999") == "2000-10-30"
    assert day("20000101", "20001231") == "2000-07-01"
    assert day("20019999") == "2001-07-02"
    assert day("20010799") == "2001-07-15"
    assert day("2000-09-01T00:00:00") == "2000-09-01"
    assert day(pd.Timestamp("2015-09-09")) == "2015-09-09"
    assert day(2015) == day("2015") == "2015-07-02"
    assert day(-9999999) == day(None) == day("None") == "NaT"


def test_an_outline_without_a_date_is_unknown_and_none_at_all_is_refused() -> None:
    frame = inventory(src_date=["2018-08-01", None])
    chips = sample_chips(make_cube(), frame, SampleOptions(windows=SMALL))
    assert "1 of 2 outlines have no date" in chips.messages[0]
    chip = chips[next(i for i, site in enumerate(chips.sites) if site.place == "b" and site.area > 0.1)]
    assert chip.glaciers is not None
    assert (chip.label[chip.glaciers[None] == 2] == UNKNOWN).all()
    bare = frame[["rgi_id", "geometry"]]
    with pytest.raises(OutlineError, match="say nowhere when they were drawn"):
        sample_chips(make_cube(), bare)
    chips = sample_chips(make_cube(), bare, SampleOptions(windows=SMALL), date="image")
    assert chips[0].attributes["outline_age"] == [0.0]
    assert chips[0].weight.max() == 1.0
    with pytest.raises(OutlineError, match="no column 'when'"):
        sample_chips(make_cube(), bare, date_column="when")


def glims() -> gpd.GeoDataFrame:
    """A glacier at two dates, with rock and debris, and one that is gone."""
    rows = [
        ("glac_bound", "G1", 1.0, "2016-08-01", "exists", polygon((20, 20), (20, 90), (90, 90), (90, 20))),
        ("glac_bound", "G1", 2.0, "2020-08-01", "exists", polygon((30, 30), (30, 80), (80, 80), (80, 30))),
        ("intrnl_rock", "G1", 1.0, "2016-08-01", "exists", polygon((40, 40), (40, 50), (50, 50), (50, 40))),
        ("debris_cov", "G1", 1.0, "2016-08-01", "exists", polygon((60, 30), (60, 80), (80, 80), (80, 30))),
        ("glac_bound", "G2", 3.0, "2016-08-01", "gone", polygon((100, 100), (100, 115), (115, 115), (115, 100))),
        ("pro_lake", "G1", 2.0, "2020-08-01", "exists", polygon((2, 2), (2, 9), (9, 9), (9, 2))),
    ]
    names = ["line_type", "glac_id", "anlys_id", "src_date", "glac_stat", "geometry"]
    return gpd.GeoDataFrame(dict(zip(names, zip(*rows, strict=True), strict=True)), crs=str(GRID.crs))


def test_glims_of_several_dates_labels_each_image_by_the_nearest() -> None:
    windows = WindowOptions(size=120, stride=120, near=1e4, within=1e4, negatives=0.0)
    chips = sample_chips(make_cube(), glims(), SampleOptions(windows=windows, dates=None))
    chip = chips[0]
    assert list(chip.labels) == ["other", "clean_ice", "debris_covered_ice", "glacier"]
    ice = (chip.label == 1) | (chip.label == 2)
    assert [int(ice[i].sum()) for i in (0, 2)] == [70 * 70 - 100, 50 * 50]
    assert (chip.label[0, 40:50, 40:50] == 0).all()
    assert (chip.label[2, 40:50, 40:50] == 1).all()
    assert (chip.label[:, 60:80, 30:80] == 2).all()
    assert chip.attributes["glaciers"] == {"1": "G1"}
    assert chip.attributes["outline_age"] == [0.0, 2.0, 0.0]


def test_a_debris_raster_parts_ice_where_it_reaches(tmp_path: Path) -> None:
    values = np.zeros((60, 160), np.uint8)
    values[30:, :30] = 1
    values[:10, :5] = 1
    place = tmp_path / "debris.tif"
    kind = {"driver": "GTiff", "dtype": "uint8", "count": 1, "crs": str(GRID.crs), "transform": GRID.affine}
    with rasterio.open(place, "w", height=60, width=160, **kind) as file:
        file.write(values, 1)
    chips = sample_chips(make_cube(), inventory(), SampleOptions(windows=SMALL), debris=place)
    truth = label_window(GRID, TIMES[:1], chips.inventory, chips.options.truth, chips.debris)
    label, ice = truth.label[0], truth.glaciers > 0
    assert (label[:60][ice[:60]] == np.where(values == 1, 2, 1)[ice[:60]]).all()
    assert (label[60:][ice[60:]] == 3).all()
    # Debris where the inventory has no glacier: one of both is wrong.
    assert (label[:10, :5] == UNKNOWN).all()
    with pytest.raises(GlaciercubeError, match="parts no such outlines"):
        labels_of(TruthOptions(inside=("rock_glacier",)), debris=True)
    assert labels_of(TruthOptions(inside=("rock_glacier",)), debris=False)["rock_glacier"] == ("rock_glacier",)


def test_cloud_weighs_nothing_without_radar_and_little_with_it() -> None:
    flags = np.ones((3, *SHAPE), np.uint8)
    flags[:, :, :40] = 3
    flags[:, :, 40:50] = 0
    cube = make_cube(flags=flags)
    options = SampleOptions(windows=WindowOptions(size=64, stride=64, near=500.0), truth=TruthOptions(boundary=0.0))
    at_once = sample_chips(cube, inventory(), options)
    chip = at_once[[days for _, days in at_once.drawn].index((1,))]
    assert chip.label[0, 0, 0] == 0
    np.testing.assert_allclose(chip.weight[0, :, :50], 0.2)
    np.testing.assert_allclose(chip.weight[0, :, 50:], 1.0)
    blind = sample_chips(cube.drop_vars("vv_db"), inventory(), options)
    assert (blind[1].weight[0, :, :50] == 0).all()
    clear = sample_chips(cube, inventory(), SampleOptions(windows=options.windows, clear=0.5))
    assert len(clear) < len(at_once)
    assert all(window.column > 0 for window, _ in clear.drawn)
    assert "show too little" in clear.messages[-1]


def test_the_share_of_chips_without_glacier_is_as_stated() -> None:
    chips = drawn()
    windows = {(window.row, window.column): window for window, _ in chips.drawn}
    without = [window for window in windows.values() if window.area == 0]
    assert len(without) == round(len(windows) * 0.25)
    outlines = inventory().union_all()
    for (row, column), window in windows.items():
        box = polygon((row, column), (row, column + 32), (row + 32, column + 32), (row + 32, column))
        assert (box.intersection(outlines).area > 1.0) == (window.area > 0)
        assert box.centroid.distance(outlines) <= (5000.0 if window.area == 0 else 50.0)
    few = sample_chips(make_cube(), inventory(), SampleOptions(windows=WindowOptions(32, 16, most=8, negatives=0.25)))
    assert few.summary()["windows"] == 8
    assert few.summary()["windows without glacier"] == 2


def test_outlines_that_cross_themselves_are_mended_and_it_is_said(caplog: pytest.LogCaptureFixture) -> None:
    bow = polygon((10, 10), (40, 40), (10, 40), (40, 10))
    frame = gpd.GeoDataFrame({"id": ["bow"], "year": [2018]}, geometry=[bow], crs=str(GRID.crs))
    found = read_outlines(frame)
    assert found.geometry.is_valid.all()
    assert found.area.sum() == pytest.approx(2 * 0.25 * 600.0**2)
    assert "1 of 1 polygons" in caplog.text
    assert len(sample_chips(make_cube(), frame, SampleOptions(windows=SMALL))) > 0


def test_outlines_that_do_not_meet_the_cube_say_where_both_are() -> None:
    away = inventory().to_crs("EPSG:4326")
    with pytest.raises(OutlineError, match=r"none of the 2 outlines .* meets the cube.*their CRS"):
        sample_chips(make_cube(), away.set_geometry(away.translate(10.0)))
    wrong = inventory().set_crs("EPSG:4326", allow_override=True)
    with pytest.raises(OutlineError, match="a CRS in degrees"):
        sample_chips(make_cube(), wrong)
    far = polygon((-100, -100), (-100, -90), (-90, -90))
    with pytest.raises(OutlineError, match="none of the 1 outlines"):
        sample_chips(make_cube(), gpd.GeoDataFrame({"year": [2018]}, geometry=[far], crs=str(GRID.crs)))


def test_cubes_that_cannot_be_sampled_are_refused() -> None:
    cube = make_cube()
    with pytest.raises(CubeError, match="no dimension time"):
        sample_chips(cube.isel(time=0), inventory())
    bare = cube.drop_vars("spatial_ref").assign_coords({name: cube[name].to_numpy() for name in ("y", "x")})
    with pytest.raises(CubeError, match="no CRS"):
        sample_chips(bare, inventory())
    with pytest.raises(CubeError, match="has no nir"):
        sample_chips(cube, inventory(), SampleOptions(variables=("nir",)))
    with pytest.raises(OutlineError, match="less than a chip of 256"):
        sample_chips(cube, inventory(), SampleOptions(windows=WindowOptions(size=256, stride=64)))


@pytest.mark.real
def test_published_inventories_are_understood(real_data: Path) -> None:
    grid = GeoBox.from_bbox((478_000, 3_091_000, 486_000, 3_098_000), "EPSG:32645", resolution=20)
    found = read_inventory(real_data / "khumbu" / "reference" / "rgi60_everest_86.gpkg", grid)
    assert set(found.outlines["date"].dt.year) == {2000, 2002, 2010}
    assert "RGI60-15.03733" in set(found.outlines["glacier"])
    baker = GeoBox.from_bbox((575_000, 5_395_000, 595_000, 5_410_000), "EPSG:32610", resolution=20)
    found = read_inventory(real_data / "copernicus_dem" / "baker_glims.geojson", baker)
    assert list(found.outlines["date"].dt.strftime("%Y-%m-%d").unique()) == ["2015-09-09"]


@pytest.mark.real
def test_outlines_of_several_years_label_vinciguerra_as_its_rasters_do(real_data: Path) -> None:
    folder, rows, labels = real_data / "vinciguerra", [], []
    for year in (2019, 2020, 2021):
        with rasterio.open(folder / "reference" / f"vinciguerra_label_{year}.tif") as source:
            labels.append(source.read(1) == 1)
            grid = GeoBox(source.shape, source.transform, str(source.crs))
        drawn = features.shapes(labels[-1].astype(np.uint8), mask=labels[-1], transform=grid.affine)
        rows.append({"id": "v", "year": year, "geometry": shapely.union_all([shape(part) for part, _ in drawn])})
    wanted = {"sentinel-2": SensorOptions("sentinel-2-l1c")}
    region = Region("vinciguerra", grid)
    cube = compose(load(find(folder / "catalog.json", region, "2019/2021", wanted), region))
    outlines = gpd.GeoDataFrame(rows, crs=str(grid.crs))
    options = SampleOptions(windows=WindowOptions(size=64, stride=64), dates=None)
    chips = sample_chips(cube, outlines, options)
    assert len(chips) >= 4
    for (window, _), chip in zip(chips.drawn, chips, strict=True):
        rows_, columns = slice(window.row, window.row + 64), slice(window.column, window.column + 64)
        for row, label in enumerate(labels):
            np.testing.assert_array_equal(chip.label[row] == 1, label[rows_, columns])
            np.testing.assert_array_equal(chip.variables["swir16"][row], cube["swir16"][row, rows_, columns])
