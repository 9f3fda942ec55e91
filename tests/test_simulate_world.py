"""The simulated world on disk: real COGs, items like the public providers', and a truth that adds up."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pandas as pd
import pystac
import pytest
import rasterio
from rasterio.warp import Resampling, reproject

from glaciercube.errors import CatalogError, ConfigError
from glaciercube.simulate.dem import stale_dem
from glaciercube.simulate.stac import write_catalog, write_truth
from glaciercube.simulate.world import World, WorldOptions, simulate_world

OPTIONS = WorldOptions(seed=30, size=80, years=(2020, 2022), dates_per_year=2)


@pytest.fixture(scope="module")
def world() -> World:
    return simulate_world(OPTIONS)


@pytest.fixture(scope="module")
def catalog(world: World, tmp_path_factory: pytest.TempPathFactory) -> pystac.Catalog:
    return pystac.Catalog.from_file(str(write_catalog(world, tmp_path_factory.mktemp("world"))))


def items(catalog: pystac.Catalog, name: str) -> list[pystac.Item]:
    child = catalog.get_child(name)
    assert child is not None
    return list(child.get_items())


def read(item: pystac.Item, key: str) -> npt.NDArray[np.float64]:
    with rasterio.open(item.assets[key].get_absolute_href()) as source:
        return np.asarray(source.read(1), dtype=np.float64)


def reflectance(item: pystac.Item, key: str) -> npt.NDArray[np.float64]:
    stored = read(item, key)
    offset = 1000 if float(item.properties["s2:processing_baseline"]) >= 4 else 0
    return np.where(stored == 0, np.nan, (stored - offset) / 10000)


def test_true_area_falls_and_is_the_pixel_count() -> None:
    world = simulate_world(WorldOptions(seed=30, years=(2016, 2019, 2022, 2025)))
    total = world.true_area().groupby("year")["area_km2"].sum()
    pixels = world.truth["ice"].sum(("y", "x")).to_numpy()
    np.testing.assert_allclose(total.to_numpy(), pixels * 400 / 1e6)
    assert (np.diff(total) < 0).all()
    # Outlines draw the same ice as the grid holds, and know its area.
    assert world.outlines["outline"].is_unique
    assert world.outlines.geometry.is_valid.all()
    np.testing.assert_allclose(world.outlines.area / 1e6, world.outlines["area_km2"])
    first = world.true_area().query("year == 2016").set_index("outline")["area_km2"]
    np.testing.assert_allclose(first[world.outlines["outline"]], world.outlines["area_km2"])
    assert world.region.outlines is not None
    assert world.truth["ice"].dims == ("year", "y", "x")


def test_every_asset_opens_where_its_item_says(catalog: pystac.Catalog) -> None:
    spellings = set()
    for item in catalog.get_items(recursive=True):
        spellings |= {"proj:epsg", "proj:code"} & set(item.to_dict()["properties"])
        for key, asset in item.assets.items():
            with rasterio.open(asset.get_absolute_href()) as source:
                grid = {**item.properties, **asset.extra_fields}
                assert list(source.shape) == list(grid["proj:shape"]), (item.id, key)
                assert list(source.transform)[:6] == pytest.approx(list(grid["proj:transform"])[:6])
                assert source.profile["tiled"]
                assert source.compression.name.lower() == "deflate"
                assert source.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
                assert (source.dtypes[0], source.nodata) == {
                    "sentinel-2-l2a": ("uint8" if key == "SCL" else "uint16", 0),
                    "sentinel-2-l1c": ("uint16", 0),
                    "sentinel-1-rtc": ("float32", -32768),
                    "cop-dem-glo-30": ("float32", None),
                }[str(item.collection_id)]
    # pystac reads both spellings as proj:code, so the files themselves are asked.
    text = "".join(path.read_text() for path in Path(catalog.get_self_href() or "").parent.rglob("*.json"))
    assert '"proj:epsg"' in text
    assert '"proj:code"' in text


def test_granules_overlap_and_one_scene_is_there_twice(catalog: pystac.Catalog) -> None:
    scenes = items(catalog, "sentinel-2-l2a")
    assert len(scenes) == 4 * 2 + 1
    tiles = {scene.properties["s2:mgrs_tile"] for scene in scenes}
    assert tiles == {"06VVM", "06VWM"}
    for take, group in pd.Series(scenes).groupby([s.properties["s2:datatake_id"].rsplit("_N", 1)[0] for s in scenes]):
        assert len({scene.datetime for scene in group}) == 1, take
    last = max(scene.properties["datetime"] for scene in scenes)
    west, east = (
        next(s for s in scenes if (s.properties["s2:mgrs_tile"], s.properties["datetime"]) == (tile, last))
        for tile in sorted(tiles)
    )
    left, right = (s.assets["B04"].extra_fields["proj:transform"][2] for s in (west, east))
    shift = round((right - left) / 10)
    both = reflectance(west, "B04")[:, shift:]
    assert both.shape[1] > 10
    np.testing.assert_array_equal(both, reflectance(east, "B04")[:, : both.shape[1]])


def test_offset_and_offset_free_scene_show_the_same_ground(catalog: pystac.Catalog) -> None:
    scenes = items(catalog, "sentinel-2-l2a")
    first = min(scene.properties["datetime"] for scene in scenes)
    twins = [s for s in scenes if s.properties["datetime"] == first and s.properties["s2:mgrs_tile"] == "06VVM"]
    old, new = sorted(twins, key=lambda scene: float(scene.properties["s2:processing_baseline"]))
    assert [scene.properties["s2:processing_baseline"] for scene in (old, new)] == ["02.12", "05.00"]
    assert new.properties["s2:generation_time"] > old.properties["s2:generation_time"]
    for band in ("B02", "B04", "B08", "B11"):
        assert np.median(read(new, band) - read(old, band)) == pytest.approx(1000, abs=25)
        difference = reflectance(new, band) - reflectance(old, band)
        assert abs(np.nanmedian(difference)) < 0.005
        assert np.nanstd(difference) < 0.02
        assert np.nanmax(np.abs(difference)) > 0


def test_level_1c_has_both_kinds_of_offset_too(catalog: pystac.Catalog) -> None:
    scenes = items(catalog, "sentinel-2-l1c")
    offsets = {scene.assets["red"].extra_fields["raster:bands"][0]["offset"] for scene in scenes}
    assert offsets == {0.0, -0.1}
    for scene in scenes:
        blue = reflectance(scene, "blue")
        assert np.nanpercentile(blue, 1) > 0.03  # no ground is darker than the air above it
        assert np.nanmedian(blue) < 1.2


def test_each_year_has_a_clear_date(catalog: pystac.Catalog) -> None:
    covers = pd.DataFrame(
        {"year": s.datetime.year, "cover": s.properties["eo:cloud_cover"]}
        for s in items(catalog, "sentinel-2-l2a")
        if s.datetime is not None
    )
    # Sen2Cor also calls some bright snow cloud.
    assert (covers.groupby("year")["cover"].min() < 25).all()


def test_radar_sees_both_ways_within_three_days(catalog: pystac.Catalog) -> None:
    scenes = items(catalog, "sentinel-1-rtc")
    assert {scene.properties["sat:orbit_state"] for scene in scenes} == {"ascending", "descending"}
    optical = pd.to_datetime([s.properties["datetime"] for s in items(catalog, "sentinel-2-l2a")])
    for scene in scenes:
        days = np.abs((optical - pd.Timestamp(scene.properties["datetime"])) / pd.Timedelta(days=1))
        assert 0 < days.min() < 4
        power = read(scene, "vv")
        assert (power[power != -32768] > 0).all()


def test_elevation_tiles_lie_where_the_ground_does(world: World, catalog: pystac.Catalog) -> None:
    tiles = items(catalog, "cop-dem-glo-30")
    assert sorted(tile.id[22:36] for tile in tiles) == [f"N{n}_00_W{w}_00" for n in (59, 60) for w in (147, 148)]
    found = np.full(world.ground.shape, np.nan, dtype=np.float32)
    for tile in tiles:
        part = np.full(world.ground.shape, np.nan, dtype=np.float32)
        with rasterio.open(tile.assets["data"].get_absolute_href()) as source:
            reproject(
                rasterio.band(source, 1),
                part,
                dst_transform=world.ground.transform,
                dst_crs=str(world.ground.crs),
                dst_nodata=np.nan,
                resampling=Resampling.bilinear,
            )
        found = np.where(np.isnan(found), part, found)
    noise = np.random.default_rng([OPTIONS.seed, 5])
    error = found - stale_dem(world.landscape, OPTIONS.dem_year, noise)
    slope = np.gradient(found, 10.0)
    # A shift of one pixel of 10 m along x or y would show as an error in proportion to the slope.
    steep = np.stack([slope[0].ravel(), slope[1].ravel(), np.ones(error.size)], axis=1)
    fine = np.isfinite(error.ravel())
    assert fine.mean() > 0.97
    shift = np.linalg.lstsq(steep[fine], error.ravel()[fine], rcond=None)[0]
    assert np.abs(shift[:2]).max() < 3  # metres
    assert abs(shift[2]) < 0.5
    assert np.nanmedian(np.abs(error)) < 2


def test_truth_goes_beside_the_catalogue(world: World, tmp_path: Path) -> None:
    outlines, areas = write_truth(world, tmp_path)
    assert list(gpd.read_file(outlines)["outline"]) == list(world.outlines["outline"])
    pd.testing.assert_frame_equal(pd.read_csv(areas), world.true_area())


def test_same_seed_writes_the_same_world(tmp_path: Path) -> None:
    options = WorldOptions(seed=30, size=32, years=(2021,), dates_per_year=1)
    for name in ("one", "two"):
        write_catalog(simulate_world(options), tmp_path / name)
    one = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*") if path.is_file())
    assert len(one) > 20
    for path in one:
        assert (tmp_path / "one" / path).read_bytes() == (tmp_path / "two" / path).read_bytes(), path


def test_a_place_that_cannot_be_written_is_named(world: World, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CatalogError, match=r"cannot write the simulated catalogue to .*file"):
        write_catalog(world, tmp_path / "file")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"resolution": 15.0}, "multiple of 10"),
        ({"years": (2022, 2020)}, "in order"),
        ({"dem_year": 1980}, "give dem_year 1998 to 2024"),
        ({"latitude": 89.5}, "too near a pole"),
        ({"longitude": 180.5}, "give -180 to 180"),
    ],
)
def test_impossible_worlds_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        WorldOptions(**wrong)  # type: ignore[arg-type]
