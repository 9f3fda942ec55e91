"""Stores and models are scored against labels whose date and grid are stated, from Python and from the command line."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import xarray as xr
import zarr
from affine import Affine
from click.testing import CliRunner, Result
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords
from shapely.geometry import box

from glaciercube.campaign import make_plan, run
from glaciercube.catalog import SensorOptions, find
from glaciercube.cli import main
from glaciercube.errors import ConfigError, GridMismatchError, OutlineError, StoreError
from glaciercube.evaluation.references import outline_reference, raster_reference
from glaciercube.evaluation.run import evaluate_store
from glaciercube.evaluation.stores import StoreCaseOptions, pairs_of, store_cases
from glaciercube.models import load_model
from glaciercube.region import Region
from glaciercube.store import StoreOptions, open_store

GRID = GeoBox((60, 80), Affine(10, 0, 500000, 0, -10, 6000000), "EPSG:32645")


@pytest.fixture(scope="module")
def cube() -> xr.Dataset:
    """Ice (p 0.9) left of column 40 in 2020 and of column 30 in 2021; a cloud over ten rows of the second image."""
    p = np.full((3, 60, 80), 0.1)
    p[:2, :, :40], p[2, :, :30] = 0.9, 0.9
    quality = np.full(p.shape, 3, "uint8")
    quality[1, :10] |= 4
    p[0, 50:] = np.nan
    times = np.array(["2020-07-01T10:00", "2020-08-01T10:00", "2021-08-01T10:00"], "datetime64[ns]")
    coords = {"time": times, **xr_coords(GRID, crs_coord_name="spatial_ref")}
    dims = ("time", "y", "x")
    return xr.Dataset(
        {"glacier_probability": (dims, p, {"grid_mapping": "spatial_ref"}), "quality": (dims, quality)},
        coords=coords,
        attrs={"region": "square"},
    )


@pytest.fixture(scope="module")
def stored(cube: xr.Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "a.zarr"
    cube.to_zarr(path, zarr_format=3, consolidated=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zarr warns that the format does not name consolidated metadata
        zarr.consolidate_metadata(path)
    return path


def outlines(**boxes: tuple[float, float, float, float]) -> gpd.GeoDataFrame:
    """Boxes in pixels (left, top, right, bottom)."""
    shapes = [
        box(500000 + 10 * left, 6000000 - 10 * bottom, 500000 + 10 * right, 6000000 - 10 * top)
        for left, top, right, bottom in boxes.values()
    ]
    return gpd.GeoDataFrame({"outline": list(boxes)}, geometry=shapes, crs="EPSG:32645")


def raster(path: Path, values: np.ndarray, affine: Affine = GRID.affine, crs: str = "EPSG:32645") -> Path:
    profile: dict[str, Any] = {"driver": "GTiff", "dtype": "uint8", "count": 1, "crs": crs, "nodata": 255}
    height, width = values.shape
    with rasterio.open(path, "w", height=height, width=width, transform=affine, **profile) as file:
        file.write(values.astype(np.uint8), 1)
    return path


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["evaluate", *map(str, arguments)])


def test_outlines_are_drawn_on_the_grid_whatever_their_crs(cube: xr.Dataset) -> None:
    found = outline_reference(cube, outlines(a=(0, 0, 40, 30), b=(0, 30, 40, 60)).to_crs("EPSG:4326"))
    assert found.truth[:, :40].all()
    assert not found.truth[:, 41:].any()
    assert found.names == {1: "a", 2: "b"}
    assert found.glaciers is not None
    assert (found.glaciers[:29, :39] == 1).all()
    assert found.known.all()
    part = outline_reference(cube, outlines(a=(0, 0, 40, 60)), within=outlines(a=(0, 0, 60, 60)))
    assert part.known.sum() == 60 * 60
    far = outlines(a=(9000, 0, 9040, 60))
    with pytest.raises(OutlineError, match=r"meets the grid of the store \(.* in EPSG:32645\)"):
        outline_reference(cube, far)
    with pytest.raises(OutlineError, match="no CRS"):
        outline_reference(cube, outlines(a=(0, 0, 40, 60)).set_crs(None, allow_override=True))


def test_raster_of_the_grid_is_read_where_it_lies(cube: xr.Dataset, tmp_path: Path) -> None:
    values = np.zeros((50, 100), np.uint8)
    values[:, :45], values[0] = 1, 255
    # Ten rows further down, five columns further left, and beyond the grid on the right.
    found = raster_reference(cube, raster(tmp_path / "a.tif", values, GRID.affine * Affine.translation(-5, 10)))
    assert not found.known[:11].any()
    assert found.known[11:].all()
    assert found.truth[11:, :40].all()
    assert found.truth.sum() == 49 * 40
    other = raster(tmp_path / "b.tif", np.full((60, 80), 7))
    with pytest.raises(OutlineError, match="its background is nodata"):
        raster_reference(cube, other, ice=(7,))
    empty = np.full((60, 80), 255)
    empty[:, :40] = 1
    background = raster(tmp_path / "c.tif", empty)
    with pytest.raises(OutlineError, match="say that its nodata is ground"):
        raster_reference(cube, background)
    assert raster_reference(cube, background, nodata_is_ground=True).truth.sum() == 60 * 40
    with pytest.raises(OutlineError, match="it holds 7: say which"):
        raster_reference(cube, other)


@pytest.mark.parametrize(
    ("affine", "crs", "words"),
    [
        (GRID.affine, "EPSG:32646", "in EPSG:32646, and the store in EPSG:32645"),
        (GRID.affine * Affine.scale(2), "EPSG:32645", "pixels of 20 x -20"),
        (GRID.affine * Affine.translation(0.5, 0), "EPSG:32645", "not those of the store"),
        (GRID.affine * Affine.translation(1000, 0), "EPSG:32645", "lies beside the store"),
    ],
)
def test_raster_of_another_grid_is_refused(
    cube: xr.Dataset, tmp_path: Path, affine: Affine, crs: str, words: str
) -> None:
    with pytest.raises(GridMismatchError, match=words) as caught:
        raster_reference(cube, raster(tmp_path / "a.tif", np.ones((60, 80)), affine, crs))
    assert "gdalwarp" in caught.value.remedy or "of that place" in caught.value.remedy


def test_dates_of_image_and_label_are_explicit(cube: xr.Dataset) -> None:
    assert [(row, round(apart)) for row, _, apart in pairs_of(cube, "2020-07-20")] == [(0, -19), (1, 12)]
    named = pairs_of(cube, "2020-07-20", StoreCaseOptions(dates=("2021-08-01",)))
    assert [(row, round(apart)) for row, _, apart in named] == [(2, 377 + 0)]
    with pytest.raises(
        StoreError, match="no image within 5 days of 2020-07-20: the nearest to the label are of 2020-08-01"
    ):
        pairs_of(cube, "2020-07-20", StoreCaseOptions(within=5))
    with pytest.raises(StoreError, match="no image on 2020-07-02"):
        pairs_of(cube, "2020-07-20", StoreCaseOptions(dates=("2020-07-01", "2020-07-02")))
    with pytest.raises(StoreError, match="'soon' is no date"):
        pairs_of(cube, "soon")
    with pytest.raises(ConfigError, match="unknown quality flag"):
        StoreCaseOptions(hidden_by=("fog",))


def test_store_is_scored_where_it_is_clear_and_known(cube: xr.Dataset) -> None:
    reference = outline_reference(cube, outlines(a=(0, 0, 40, 60)), within=outlines(a=(0, 0, 60, 60)))
    first, second = store_cases(cube, reference, "2020-07-20")
    assert (first.seen.sum(), second.seen.sum()) == (50 * 60, 50 * 60)
    assert not second.seen[:10].any()
    report = evaluate_store(cube, reference, "2020-07-20", source="a.zarr")
    assert report.overlap.pooled.iou == 1
    assert report.overlap.unseen == 10 * 60
    assert report.facts["images compared with it"] == "2020-07-01 (-19 days), 2020-08-01 (+12 days)"
    assert [(g.glacier, g.images, g.cut) for g in report.glaciers] == [("a", 2, True)]
    later = evaluate_store(cube, reference, "2020-07-20", StoreCaseOptions(dates=("2021-08-01",)))
    assert later.overlap.pooled.iou == 0.75
    assert later.outlines.mean == 100.0


def test_command_scores_a_store(stored: Path, tmp_path: Path) -> None:
    label, out = tmp_path / "label.geojson", tmp_path / "out"
    outlines(a=(0, 0, 30, 60)).to_crs("EPSG:4326").to_file(label)
    done = call("store", stored, label, "--label-date", "2021-07-30", "--out", out)
    assert done.exit_code == 0, done.output
    assert "1 images, 4,800 pixels: IoU 1.000" in done.stdout
    content = json.loads((out / "report.json").read_text())
    assert content["facts"]["images compared with it"] == "2021-08-01 (+2 days)"
    assert "| date of the label | 2021-07-30 |" in (out / "report.md").read_text()
    assert (out / "reliability.png").is_file()
    tif = raster(tmp_path / "label.tif", np.arange(80)[None].repeat(60, axis=0) < 60)
    whole = call("store", stored, tif, "--label-date", "2020-08-01", "--image-date", "2020-08-01", "--out", out)
    assert "IoU 0.667" in whole.stdout, whole.output
    for arguments, words in (
        ((stored, tif, "--label-date", "2019-08-01"), "the nearest to the label are of 2020-07-01"),
        ((stored, tif, "--label-date", "2020-08-01", "--known", label), "--known is for outlines"),
        ((stored, tmp_path / "none.tif", "--label-date", "2020-08-01"), "cannot read the raster"),
        ((stored, tif, "--label-date", "2020-08-01", "--threshold", "2"), "between 0 and 1"),
    ):
        refused = call("store", *arguments, "--out", out)
        assert refused.exit_code == 1
        assert words in refused.stderr


def test_what_is_refused_leaves_no_folder_and_dates_are_read_first(stored: Path, tmp_path: Path) -> None:
    label, none, out = tmp_path / "label.geojson", tmp_path / "none.zarr", tmp_path / "new" / "out"
    outlines(a=(0, 0, 30, 60)).to_file(label)
    (tmp_path / "file").write_text("mine")
    for arguments, folder, words in (
        ((none, label, "--label-date", "soon"), out, "'soon' is no date"),
        ((none, label, "--label-date", "2020-08-01", "--image-date", "later"), out, "'later' is no date"),
        ((none, label, "--label-date", "2020-08-01"), out, f"({none} does not exist): check the path.\n"),
        ((stored, label, "--label-date", "2019-08-01"), out, "the nearest to the label are of 2020-07-01"),
        ((stored, label, "--label-date", "2020-08-01"), tmp_path / "file" / "out", f"({tmp_path / 'file'} is a file)"),
    ):
        refused = call("store", *arguments, "--out", folder)
        assert refused.exit_code == 1
        assert words in refused.stderr
        assert refused.stderr.count("\n") == 1
        assert not out.parent.exists()
    done = call("store", stored, label, "--label-date", "2021-07-30", "--out", out)
    assert done.exit_code == 0, done.output
    assert (out / "report.md").is_file()


def test_real_store_scores_as_the_rule_is_known_to(real_data: Path, tmp_path: Path) -> None:
    labels = {year: real_data / "vinciguerra" / "reference" / f"vinciguerra_label_{year}.tif" for year in (2019, 2021)}
    with rasterio.open(labels[2019]) as source:
        region = Region("vinciguerra", GeoBox(source.shape, source.transform, str(source.crs)))
    wanted = {"sentinel-2": SensorOptions("sentinel-2-l1c")}
    scenes = find(real_data / "vinciguerra" / "catalog.json", region, "2019/2021", wanted)
    run(make_plan(region, scenes, load_model("band-ratio"), StoreOptions(str(tmp_path / "v.zarr"))))
    cube = open_store(tmp_path / "v.zarr")
    found = {}
    for year, label in labels.items():
        report = evaluate_store(
            cube,
            raster_reference(cube, label, nodata_is_ground=True),
            f"{year}-02-15",
            StoreCaseOptions(within=90),
            source="v.zarr",
        )
        assert len(report.images) == 1
        assert report.images[0].time.startswith(str(year))
        found[year] = (report.overlap.pooled.iou, report.overlap.tolerant.iou, report.overlap.best_iou)
    np.testing.assert_allclose([found[2019][0], found[2021][0]], [0.79, 0.67], atol=0.01)
    # Some of what is lost lies at the edges.
    assert all(iou < tolerant < 0.95 for iou, tolerant, _ in found.values())
    assert all(iou < best for iou, _, best in found.values())
