"""The main job on real satellite data, held against what was computed independently with NumPy."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
import xarray as xr
from odc.geo.geobox import GeoBox

from glaciercube.campaign import make_plan, run
from glaciercube.catalog import SensorOptions, find
from glaciercube.change import TerrainWarning, area_series
from glaciercube.cube import compose, load, settle_offsets
from glaciercube.inference import predict
from glaciercube.models import load_model
from glaciercube.region import Region
from glaciercube.store import StoreOptions, open_store, provenance_of

pytestmark = pytest.mark.real

KHUMBU = "RGI60-15.03733"
YEARS = (2019, 2020, 2021)


def iou(found: npt.NDArray[np.bool_], label: npt.NDArray[np.bool_]) -> float:
    return float((found & label).sum() / (found | label).sum())


@pytest.fixture(scope="module")
def vinciguerra(real_data: Path) -> tuple[Region, dict[int, npt.NDArray[np.bool_]]]:
    """The native 10 m grid, and the label of each year on it."""
    labels = {}
    for year in YEARS:
        with rasterio.open(real_data / "vinciguerra" / "reference" / f"vinciguerra_label_{year}.tif") as source:
            labels[year] = source.read(1) == 1
            grid = GeoBox(source.shape, source.transform, str(source.crs))
    return Region("vinciguerra", grid), labels


def vinciguerra_cube(real_data: Path, region: Region) -> xr.Dataset:
    wanted = {"sentinel-2": SensorOptions("sentinel-2-l1c")}
    return compose(load(find(real_data / "vinciguerra" / "catalog.json", region, "2019/2021", wanted), region))


def test_vinciguerra_band_ratio_from_the_catalogue_to_the_store(
    real_data: Path, vinciguerra: tuple[Region, dict[int, npt.NDArray[np.bool_]]], tmp_path: Path
) -> None:
    region, labels = vinciguerra
    scenes = find(
        real_data / "vinciguerra" / "catalog.json", region, "2019/2021", {"sentinel-2": SensorOptions("sentinel-2-l1c")}
    )
    model = load_model("band-ratio", threshold=2.8, blue=0.15)
    run(make_plan(region, scenes, model, StoreOptions(str(tmp_path / "v.zarr"), shard=64, chunk=32)))
    stored = open_store(tmp_path / "v.zarr")
    found = [iou((stored["glacier_probability"][i] > 0.5).to_numpy(), labels[year]) for i, year in enumerate(YEARS)]
    np.testing.assert_allclose(found, [0.79, 0.77, 0.67], atol=0.01)


def test_vinciguerra_native_pixels_are_untouched(
    real_data: Path, vinciguerra: tuple[Region, dict[int, npt.NDArray[np.bool_]]]
) -> None:
    cube = vinciguerra_cube(real_data, vinciguerra[0])
    assert cube.attrs["reflectance"] == "toa"
    for row, year in enumerate(YEARS):
        with rasterio.open(real_data / "vinciguerra" / "cogs" / f"S2_{year}_B11.tif") as source:
            numbers = source.read(1)
        wanted = np.where(numbers == 0, np.nan, numbers * np.float32(1e-4))
        np.testing.assert_allclose(cube["swir16"][row], wanted, atol=1e-6)


def test_vinciguerra_fusion_unet_stays_where_it_was(
    real_data: Path, vinciguerra: tuple[Region, dict[int, npt.NDArray[np.bool_]]]
) -> None:
    """Never trained on; the bound is far below what was measured, and catches a broken model, not a worse one."""
    region, labels = vinciguerra
    found = predict(vinciguerra_cube(real_data, region), load_model("fusion-unet"))["glacier_probability"].compute()
    scores = [iou((found[i] > 0.5).to_numpy(), labels[year]) for i, year in enumerate(YEARS)]
    assert np.mean(scores) > 0.5, scores


@pytest.fixture(scope="module")
def khumbu() -> Region:
    return Region.from_bbox((86.78, 27.95, 86.85, 28.00), resolution=20, name="khumbu")


def khumbu_run(real_data: Path, region: Region, sensors: list[str], path: Path) -> xr.Dataset:
    found = find(real_data / "khumbu" / "catalog.json", region, "2024-01-01/2024-12-31", sensors)
    scenes = settle_offsets(found, region)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", category=PendingDeprecationWarning)
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        run(make_plan(region, scenes, load_model("fusion-unet"), StoreOptions(str(path))))
    return open_store(path)


@pytest.mark.parametrize(
    ("sensors", "modalities"),
    [
        (["sentinel-2", "sentinel-1", "dem"], {"optical", "radar", "terrain", "relief"}),
        (["sentinel-2", "dem"], {"optical", "terrain", "relief"}),
        (["sentinel-1", "dem"], {"radar", "terrain", "relief"}),
    ],
)
def test_khumbu_with_any_sensors(
    real_data: Path, khumbu: Region, tmp_path: Path, sensors: list[str], modalities: set[str]
) -> None:
    stored = khumbu_run(real_data, khumbu, sensors, tmp_path / "k.zarr")
    assert stored.sizes["time"] == 4
    assert set(provenance_of(stored)["modalities"]) == modalities
    probability = stored["glacier_probability"].to_numpy()
    # The box of the images is a little smaller than the grid around it.
    assert np.isfinite(probability).mean() > 0.9
    assert np.nanmin(probability) < 0.1
    assert np.nanmax(probability) > 0.5
    outlines = real_data / "khumbu" / "reference" / "rgi60_everest_86.gpkg"
    with pytest.warns(TerrainWarning, match="elevation model|not measured"):
        series = area_series(tmp_path / "k.zarr", outlines)
    own = series[series["outline"] == KHUMBU]
    assert len(own) == 4
    np.testing.assert_allclose(own["outline_area_km2"], 19.097, rtol=0.002)
    np.testing.assert_allclose(own["coverage"], 0.24, atol=0.012)
    assert (own["area_km2"] <= own["coverage"] * own["outline_area_km2"] + 1e-9).all()
    assert (own["area_km2"] > 0).any()


def test_khumbu_inputs_are_physical(real_data: Path, khumbu: Region) -> None:
    scenes = settle_offsets(find(real_data / "khumbu" / "catalog.json", khumbu, "2024-01-01/2024-12-31"), khumbu)
    tree = load(scenes, khumbu)
    nodes: dict[str, Any] = {name: tree[name].to_dataset().compute() for name in tree.children}
    low, high = np.nanpercentile(nodes["sentinel1"]["vv_db"], [1, 99])
    assert -30 < low < high < 6
    # Nothing clipped: the extremes are beyond those percentiles, and no value piles up there.
    values = nodes["sentinel1"]["vv_db"].to_numpy()
    values = values[np.isfinite(values)]
    assert values.min() < low - 1
    assert values.max() > high + 1
    for extreme in (values.min(), values.max()):
        assert (values == extreme).sum() < 20
    slope = nodes["terrain"]["slope"]
    assert float(slope.max()) <= 90
    assert np.nanpercentile(slope, 99.9) < 80
    assert float(nodes["sentinel2"]["red"].max()) < 2
    cube = compose(tree)
    assert list(cube["sentinel1_age"].to_numpy()) == [0, 0, 0, 0]
