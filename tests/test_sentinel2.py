"""Sentinel-2: bands of three pixel sizes, percentages, angles, parts of a granule, solar days."""

from __future__ import annotations

import copy
import datetime as dt
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pystac
import pytest
import rasterio
import xarray as xr
from affine import Affine

from glaciercube.catalog import PROFILES, Scenes, SensorOptions, find
from glaciercube.catalog.resolve import resolve
from glaciercube.cube import ComposeOptions, LoadOptions, compose, coverage, load
from glaciercube.errors import BandError
from glaciercube.region import Region
from glaciercube.region.sun import sun_position
from glaciercube.sensors import Sentinel2, get_sensor, resolve_bands
from glaciercube.simulate.cog import write_cog
from glaciercube.simulate.world import World

EXTRA = ("coastal", "rededge1", "rededge2", "rededge3", "nir08", "nir09", "cirrus")
PERCENT = ("cloud_probability", "snow_probability")
LEFT, TOP, SIDE = 500_040.0, 6_651_000.0, 1440.0


def _plane(size: float) -> npt.NDArray[np.uint16]:
    """DN of a plane that rises to the east and south, at pixel centres of a grid of that pixel size."""
    middle = (np.arange(round(SIDE / size)) + 0.5) * size
    return np.rint(2000 + middle[None, :] + 2 * middle[:, None]).astype(np.uint16)


def _classes(size: float) -> npt.NDArray[np.uint8]:
    """Stripes of 180 m."""
    middle = (np.arange(round(SIDE / size)) + 0.5) * size
    return np.broadcast_to(np.where((middle // 180) % 2 == 0, 4, 11), (middle.size, middle.size)).astype(np.uint8)


@pytest.fixture(scope="module")
def pyramid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One scene with a band of each pixel size, the same plane in all, and classes."""
    folder = tmp_path_factory.mktemp("pyramid")
    bands = {band.name: (band.assets[0], band.resolution) for band in Sentinel2().bands}
    corner = rasterio.warp.transform("EPSG:32606", "EPSG:4326", [LEFT, LEFT + SIDE], [TOP - SIDE, TOP])
    box = [corner[0][0], corner[1][0], corner[0][1], corner[1][1]]
    item = pystac.Item(
        "S2A_MSIL2A_20240801T211853_R043_T06VVM_20240801T230000",
        {"type": "Polygon", "coordinates": [[[box[i], box[j]] for i, j in ((0, 1), (2, 1), (2, 3), (0, 3), (0, 1))]]},
        box,
        dt.datetime(2024, 8, 1, 21, 18, 53, tzinfo=dt.UTC),
        {
            "proj:epsg": 32606,
            "s2:processing_baseline": "02.12",
            "view:incidence_angle": 7.5,
            "view:azimuth": 112.7,
            "view:sun_azimuth": 170.0,
            "view:sun_elevation": 48.0,
        },
        collection="sentinel-2-l2a",
    )
    for name, (key, size) in bands.items():
        pixels = _classes(size) if name in ("scl", *PERCENT) else _plane(size)
        transform = Affine(size, 0, LEFT, 0, -size, TOP)
        write_cog(folder / f"{key}.tif", pixels, transform, "EPSG:32606", nodata=0, categorical=name == "scl")
        fields = {"proj:transform": list(transform)[:6], "proj:shape": list(pixels.shape)}
        item.add_asset(key, pystac.Asset(str(folder / f"{key}.tif"), extra_fields=fields))
    extent = pystac.Extent(pystac.SpatialExtent([box]), pystac.TemporalExtent([[item.datetime, item.datetime]]))
    collection = pystac.Collection("sentinel-2-l2a", "one scene", extent)
    collection.add_item(item)
    root = pystac.Catalog("one", "one scene")
    root.add_child(collection)
    root.normalize_and_save(str(folder / "catalog"), pystac.CatalogType.SELF_CONTAINED)
    return folder / "catalog" / "catalog.json"


def _loaded(pyramid: Path, resolution: float) -> tuple[xr.Dataset, npt.NDArray[np.float64]]:
    """All bands on a grid within the scene that shares its origin, and the plane's reflectance there."""
    from odc.geo.geobox import GeoBox

    inset = 120.0
    count = int((SIDE - 2 * inset) // resolution)
    transform = Affine(resolution, 0, LEFT + inset, 0, -resolution, TOP - inset)
    region = Region("pyramid", GeoBox((count, count), transform, "EPSG:32606"))
    scenes = find(pyramid, region, "2024", {"sentinel-2": SensorOptions(bands=EXTRA + PERCENT)})
    node = load(scenes, region, LoadOptions(cell=24))["sentinel2"].to_dataset().isel(time=0).compute()
    middle = inset + (np.arange(count) + 0.5) * resolution
    return node, (2000 + middle[None, :] + 2 * middle[:, None]) * 1e-4


@pytest.mark.parametrize("resolution", [10.0, 20.0, 60.0])
def test_bands_of_10_20_and_60_m_show_the_same_plane(pyramid: Path, resolution: float) -> None:
    """Bilinear from coarser pixels and averages of finer ones both keep a plane: any shift or nearest pixel shows."""
    node, plane = _loaded(pyramid, resolution)
    for band in Sentinel2().bands:
        if band.name in ("scl", *PERCENT):
            continue
        # 1 DN for rounding; overviews of a plane are exact.
        np.testing.assert_allclose(node[band.name], plane, atol=1.6e-4, err_msg=band.name)
        assert node[band.name].dtype == "float32"


@pytest.mark.parametrize("resolution", [10.0, 20.0, 60.0])
def test_classes_and_percentages_are_never_averaged(pyramid: Path, resolution: float) -> None:
    node, _ = _loaded(pyramid, resolution)
    middle = 120.0 + (np.arange(node.sizes["x"]) + 0.5) * resolution
    wanted = np.broadcast_to(np.where((middle // 180) % 2 == 0, 4, 11), node["scl"].shape)
    for name in ("scl", *PERCENT):
        assert node[name].dtype == "uint8"
        np.testing.assert_array_equal(node[name], wanted)


def test_extra_bands_are_read_only_when_asked_for(pyramid: Path) -> None:
    item = next(pystac.Catalog.from_file(str(pyramid)).get_items(recursive=True))
    assert set(resolve_bands(item, Sentinel2())) == {"blue", "green", "red", "nir", "swir16", "swir22", "scl"}
    assert set(resolve_bands(item, Sentinel2(), EXTRA)) >= set(EXTRA)
    del item.assets["B10"]
    # L2A has no cirrus band: it is left out, and a required band is not.
    assert "cirrus" not in resolve_bands(item, Sentinel2(), EXTRA)
    del item.assets["B04"]
    with pytest.raises(BandError, match="no asset for band 'red'"):
        resolve_bands(item, Sentinel2(), EXTRA)


@pytest.mark.real
@pytest.mark.parametrize(
    ("provider", "collection", "lacks"),
    [
        ("planetary-computer", "sentinel-2-l2a", {"cirrus", *PERCENT}),
        ("earth-search", "sentinel-2-l2a", {"cirrus"}),
        ("earth-search", "sentinel-2-c1-l2a", {"cirrus"}),
        ("earth-search", "sentinel-2-l1c", {"scl", *PERCENT}),
    ],
)
def test_recorded_items_have_the_bands_that_their_level_has(
    real_data: Path, provider: str, collection: str, lacks: set[str]
) -> None:
    everything = {band.name for band in Sentinel2().bands}
    sizes = {band.name: band.resolution for band in Sentinel2().bands}
    for path in sorted((real_data / "stac_recorded" / provider / collection / "items").glob("*.json")):
        item = pystac.Item.from_dict(json.loads(path.read_text()), migrate=False)
        facts, bands = resolve(item, get_sensor("sentinel-2"), EXTRA + PERCENT, PROFILES[provider], collection)
        # One old item of Earth Search has no probabilities.
        assert set(bands) in (everything - lacks, everything - lacks - set(PERCENT)), path.name
        for name, source in bands.items():
            assert source.resolution == sizes[name], (path.name, name)
            assert source.dtype == ("uint8" if name in ("scl", *PERCENT) else "uint16")
            assert source.scale == (1.0 if name in ("scl", *PERCENT) else 1e-4)
        assert np.isfinite(facts.sun_elevation)
        if "view:azimuth" in item.properties:
            assert facts.notes["view_azimuth"] == item.properties["view:azimuth"]
            assert facts.notes["view_zenith"] == item.properties["view:incidence_angle"]


def test_the_declared_scale_counts() -> None:
    dn = xr.DataArray(np.array([[[0, 100, 5000]]], "uint16"), dims=("time", "y", "x"))
    raw = xr.Dataset({"red": dn.assign_attrs(nodata=0, scale=2e-4), "nir": dn.assign_attrs(nodata=0, scale=1e-4)})
    out = Sentinel2().decode(raw, xr.DataArray([-0.1], dims="time"))
    np.testing.assert_allclose(out["red"][0, 0], [np.nan, -0.08, 0.9], rtol=1e-6)
    np.testing.assert_allclose(out["nir"][0, 0], [np.nan, -0.09, 0.4], rtol=1e-6)


def test_angles_are_coordinates_along_time(pyramid: Path) -> None:
    node, _ = _loaded(pyramid, 60.0)
    for name, value in (("view_zenith", 7.5), ("view_azimuth", 112.7), ("sun_azimuth", 170.0), ("sun_elevation", 48.0)):
        assert float(node[name]) == pytest.approx(value)
        assert node[name].attrs["units"] == "degree"


# The sun. Almanac's: Michalsky (1988), Solar Energy 40, 227-235, good for 0.01 degrees.


def _almanac(when: dt.datetime, longitude: float, latitude: float) -> tuple[float, float]:
    days = (when - dt.datetime(2000, 1, 1, 12, tzinfo=dt.UTC)).total_seconds() / 86400
    anomaly = np.radians(357.528 + 0.9856003 * days)
    along = np.radians(280.46 + 0.9856474 * days + 1.915 * np.sin(anomaly) + 0.02 * np.sin(2 * anomaly))
    tilt = np.radians(23.439 - 4e-7 * days)
    ascension = np.arctan2(np.cos(tilt) * np.sin(along), np.cos(along))
    declination = np.arcsin(np.sin(tilt) * np.sin(along))
    hours = when.hour + when.minute / 60 + when.second / 3600
    angle = np.radians(15 * (6.697375 + 0.0657098242 * days + hours) + longitude) - ascension
    high = np.radians(latitude)
    up = np.sin(high) * np.sin(declination) + np.cos(high) * np.cos(declination) * np.cos(angle)
    north = np.cos(high) * np.sin(declination) - np.sin(high) * np.cos(declination) * np.cos(angle)
    return float(np.degrees(np.arctan2(-np.cos(declination) * np.sin(angle), north)) % 360), float(
        np.degrees(np.arcsin(up))
    )


def test_the_sun_is_right_to_1_3_degrees_everywhere() -> None:
    for latitude in (-75.0, -50.0, -10.0, 0.0, 30.0, 46.0, 80.0):
        for day in range(0, 366, 5):
            when = dt.datetime(2024, 1, 1, 10, 30, tzinfo=dt.UTC) + dt.timedelta(days=day)
            (towards, high), (azimuth, elevation) = (made(when, 12.0, latitude) for made in (sun_position, _almanac))
            assert abs(high - elevation) < 1.3
            assert abs((towards - azimuth + 180) % 360 - 180) * np.cos(np.radians(elevation)) < 1.3


def _recorded_sentinel2(folder: Path) -> list[pystac.Item]:
    paths = sorted((folder / "stac_recorded").glob("*/sentinel-2*/items/*.json"))
    return [pystac.Item.from_dict(json.loads(path.read_text()), migrate=False) for path in paths]


def _when_and_where(item: pystac.Item) -> tuple[dt.datetime, float, float]:
    """Start of the datastrip, where the item names it (ESA's datatakes begin some minutes earlier), and the middle."""
    strip = item.properties.get("s2:datastrip_id", item.properties.get("eopf:datastrip_id", ""))
    named = re.search(r"_S(\d{8}T\d{6})_", strip)
    when = dt.datetime.strptime(named[1] + "Z", "%Y%m%dT%H%M%S%z") if named else item.datetime
    assert when is not None
    assert item.bbox is not None
    return when, (item.bbox[0] + item.bbox[2]) / 2, (item.bbox[1] + item.bbox[3]) / 2


def test_the_sun_of_every_recorded_item_is_where_the_sun_was(real_data: Path) -> None:
    items = _recorded_sentinel2(real_data)
    assert len(items) > 30
    corrected = {}
    for item in items:
        facts = Sentinel2().facts(item)
        azimuth, elevation = _almanac(*_when_and_where(item))
        assert facts.sun_elevation == pytest.approx(elevation, abs=2.0), item.id
        assert facts.sun_azimuth == pytest.approx(azimuth, abs=5.0), item.id
        if "sun_by" in facts.notes:
            corrected[item.id[:38]] = (facts.notes["sun_by"], round(90 - item.properties["view:sun_elevation"], 3))
            assert facts.sun_elevation == pytest.approx(90 - item.properties["view:sun_elevation"])
            assert facts.notes["sun_stated"][1] == item.properties["view:sun_elevation"]
    # Two items of CDSE give the zenith distance as the elevation, and nobody else errs.
    assert {name: how for name, (how, _) in corrected.items()} == {
        "S2A_MSIL2A_20251008T100041_N0511_R122_": "stated zenith",
        "S2A_MSIL2A_20251113T102311_N0511_R065_": "stated zenith",
    }


SUN = {"view:sun_azimuth", "view:sun_elevation", "s2:mean_solar_azimuth", "s2:mean_solar_zenith"}


def test_a_sun_that_is_missing_or_cannot_be_is_computed(real_data: Path) -> None:
    for item in _recorded_sentinel2(real_data):
        azimuth, elevation = _almanac(*_when_and_where(item))
        whole = item.properties
        item.properties = {name: value for name, value in whole.items() if name not in SUN}
        facts = Sentinel2().facts(item)
        assert facts.notes["sun_by"] == "computed"
        assert "sun_stated" not in facts.notes
        assert facts.sun_elevation == pytest.approx(elevation, abs=2.0), item.id
        assert abs(facts.sun_azimuth - azimuth) * np.cos(np.radians(elevation)) < 2.0, item.id
        # As from the south, and far too low: neither can be, and both are kept in the notes.
        item.properties |= {"view:sun_azimuth": (azimuth + 180) % 360, "view:sun_elevation": elevation - 25.0}
        if abs(90 - 2 * elevation + 25) > 6:
            odd = Sentinel2().facts(item)
            assert (odd.sun_azimuth, odd.sun_elevation) == (facts.sun_azimuth, facts.sun_elevation)
            assert odd.notes["sun_by"] == "computed"
            assert odd.notes["sun_stated"] == [(azimuth + 180) % 360, elevation - 25.0]


def test_the_sun_beside_the_antimeridian_and_late_in_a_datatake_is_kept() -> None:
    """A footprint on both sides of 180 degrees; and a tile seen 24 minutes after the time that its item gives."""
    ring = [[179.5, -17.0], [180.0, -17.0], [180.0, -16.0], [179.5, -16.0], [179.5, -17.0]]
    west = [[-180.0, -17.0], [-179.4, -17.0], [-179.4, -16.0], [-180.0, -16.0], [-180.0, -17.0]]
    for coordinates, box, seen, minutes in (
        ([[ring], [west]], [-180.0, -17.0, 180.0, -16.0], dt.datetime(2024, 3, 3, 22, 14, 20, tzinfo=dt.UTC), 0),
        ([[[[-72.0, -51.0], [-70.6, -51.0], [-70.6, -50.0], [-72.0, -51.0]]]], [-72.0, -51.0, -70.6, -50.0],
         dt.datetime(2024, 1, 15, 14, 24, tzinfo=dt.UTC), 24),
    ):  # fmt: skip
        place = (-180.0 + 0.05, -16.5) if minutes == 0 else (-71.1, -50.7)
        azimuth, elevation = _almanac(seen, *place)
        said = {"view:sun_azimuth": azimuth, "view:sun_elevation": elevation}
        geometry = {"type": "MultiPolygon", "coordinates": coordinates}
        item = pystac.Item("S2A", geometry, box, seen - dt.timedelta(minutes=minutes), said)
        facts = Sentinel2().facts(item)
        assert (facts.sun_azimuth, facts.sun_elevation) == (azimuth, elevation)
        assert "sun_by" not in facts.notes


# Parts of a granule, duplicates, days.


@pytest.fixture(scope="module")
def scenes(world: World, catalog: Path) -> Scenes:
    return find(catalog, world.region, "2021/2022", ["sentinel-2"])


def _catalog_of(items: list[dict[str, Any]], folder: Path) -> Path:
    """A static catalogue of given items, whose assets are absolute."""
    everywhere = pystac.SpatialExtent([-180.0, -90.0, 180.0, 90.0])
    extent = pystac.Extent(everywhere, pystac.TemporalExtent([[None, None]]))  # type: ignore[arg-type]
    collection = pystac.Collection("sentinel-2-l2a", "parts", extent)
    collection.add_items([pystac.Item.from_dict(item, migrate=False) for item in items])
    root = pystac.Catalog("parts", "parts")
    root.add_child(collection)
    root.normalize_and_save(str(folder), pystac.CatalogType.SELF_CONTAINED)
    return folder / "catalog.json"


def test_two_ground_stations_parts_fill_each_others_nodata(scenes: Scenes, world: World, tmp_path: Path) -> None:
    """One granule cut in two, as when two stations received a half each: the same datatake, tile and baseline."""
    first = scenes.table["group"].iloc[-1]
    granule = replace(scenes, table=scenes.table[scenes.table["group"] == first].tail(1).reset_index(drop=True))
    whole = json.loads(granule.table.loc[0, "item"])
    whole["links"] = []
    parts = []
    strip = whole["properties"]["s2:datastrip_id"]
    sensed = re.search(r"_S(\d{8}T\d{4})\d\d_", strip)
    assert sensed
    for part, name in enumerate(("10", "40")):
        item = copy.deepcopy(whole)
        item["id"] = f"{whole['id'][:-6]}{part:06d}"
        item["properties"]["s2:datastrip_id"] = strip.replace(sensed[0], f"_S{sensed[1]}{name}_")
        for key, asset in item["assets"].items():
            with rasterio.open(asset["href"]) as source:
                pixels, grid, crs = source.read(1), source.transform, str(source.crs)
            cut = round(0.45 * pixels.shape[0] / 2) * 2
            rows = slice(cut, None) if part == 0 else slice(None, cut)
            pixels[rows] = 0
            asset["href"] = str(tmp_path / f"{name}-{key}.tif")
            write_cog(Path(asset["href"]), pixels, grid, crs, nodata=0, categorical=key == "SCL")
        parts.append(item)
    found = find(_catalog_of(parts, tmp_path / "both"), world.region, "2021/2022", ["sentinel-2"])
    assert len(found) == 2
    assert found.table["time"].nunique() == 1
    native = Region("native", world.region.geobox.zoom_out(0.5))
    wanted = load(granule, native)["sentinel2"].to_dataset().compute()
    merged = load(found, native)["sentinel2"].to_dataset().compute()
    assert merged.sizes["time"] == 1
    for band in ("red", "nir", "scl"):
        np.testing.assert_array_equal(merged[band], wanted[band])
    # SWIR has pixels of 20 m: bilinear weights differ beside the cut, where one part has nothing.
    same = np.isclose(merged["swir16"], wanted["swir16"], equal_nan=True).mean()
    assert same > 0.97
    assert (merged["swir16"].isnull() == wanted["swir16"].isnull()).mean() > 0.999
    # A newer baseline of one part replaces both: a scene is not mended with an older processing.
    newer = copy.deepcopy(parts[0])
    newer["id"] = f"{whole['id'][:-6]}999999"
    newer["properties"]["s2:processing_baseline"] = "05.99"
    again = find(_catalog_of([*parts, newer], tmp_path / "newer"), world.region, "2021/2022", ["sentinel-2"])
    assert list(again.table["id"]) == [newer["id"]]


@pytest.mark.parametrize(("longitude", "hour", "day"), [(-170.0, 3, "-1"), (175.0, 23, "+1"), (0.0, 11, "0")])
def test_the_solar_day_is_that_of_the_regions_longitude(
    scenes: Scenes, tmp_path: Path, longitude: float, hour: int, day: str
) -> None:
    """Near the date line the local date is not that of UTC."""
    region = Region.from_bbox((longitude - 0.02, 60.0, longitude + 0.02, 60.02), resolution=60)
    item = json.loads(scenes.table.loc[0, "item"])
    west, east = longitude - 0.1, longitude + 0.1
    ring = [[west, 59.9], [east, 59.9], [east, 60.1], [west, 60.1], [west, 59.9]]
    item |= {"geometry": {"type": "Polygon", "coordinates": [ring]}, "bbox": [west, 59.9, east, 60.1], "links": []}
    item["id"] = f"S2A_MSIL2A_20220810T{hour:02d}3000_R043_T06VVM_20220811T120000"
    item["properties"]["datetime"] = f"2022-08-10T{hour:02d}:30:00Z"
    for name in ("s2:datatake_id", "s2:product_uri"):
        item["properties"].pop(name, None)
    found = find(_catalog_of([item], tmp_path / "day"), region, "2022", ["sentinel-2"])
    local = dt.datetime(2022, 8, 10, hour, 30) + dt.timedelta(hours=longitude / 15)  # noqa: DTZ001 - local solar time
    assert found.table.loc[0, "solar_day"] == local.date().isoformat()
    assert (local.date() - dt.date(2022, 8, 10)).days == int(day)


# Companions.


def _radar(times: list[str], shares: list[float]) -> xr.Dataset:
    values = np.arange(1.0, len(times) + 1, dtype="float32")[:, None, None] * np.ones((1, 2, 2), "float32")
    coords = {
        "time": np.array(times, "datetime64[ms]"),
        "coverage": ("time", np.array(shares)),
        "orbit_state": ("time", np.array(["ascending", "descending"] * len(times))[: len(times)]),
        "relative_orbit": ("time", np.arange(len(times)) + 10),
        "y": [20.0, 0.0],
        "x": [0.0, 20.0],
    }
    return xr.Dataset({"vv": (("time", "y", "x"), values)}, coords)


def test_a_companion_that_covers_the_region_is_preferred() -> None:
    optical = xr.Dataset(
        {"red": (("time", "y", "x"), np.full((2, 2, 2), 0.1, "float32"))},
        {"time": np.array(["2024-07-10", "2024-09-20"], "datetime64[ms]"), "y": [20.0, 0.0], "x": [0.0, 20.0]},
    )
    radar = _radar(["2024-07-06", "2024-07-09", "2024-07-12"], [1.0, 0.1, 0.7])
    tree = xr.DataTree.from_dict({"sentinel2": optical, "sentinel1": radar})
    cases = ((0.5, 3, 2.0, "ascending", 12), (0.8, 1, -4.0, "ascending", 10), (0.0, 2, -1.0, "descending", 11))
    for least, value, age, state, orbit in cases:
        cube = compose(tree, ComposeOptions(min_coverage=least))
        assert float(cube["vv"][0, 0, 0]) == value
        assert float(cube["sentinel1_age"][0]) == age
        assert str(cube["sentinel1_orbit_state"].to_numpy()[0]) == state
        assert int(cube["sentinel1_relative_orbit"][0]) == orbit
        # The other date is 70 days away: nothing is borrowed, and nothing is said of it.
        assert np.isnan(cube["sentinel1_age"][1])
        assert cube["vv"][1].isnull().all()
        assert str(cube["sentinel1_orbit_state"].to_numpy()[1]) == ""
    # Where none covers enough, the nearest is better than none.
    poor = xr.DataTree.from_dict({"sentinel2": optical, "sentinel1": radar.assign_coords(coverage=("time", [0.2] * 3))})
    assert float(compose(poor)["sentinel1_age"][0]) == -1.0
    np.testing.assert_allclose(cube["vv_db"][0], 10 * np.log10(2), rtol=1e-5)


def test_coverage_counts_the_footprints_of_an_acquisition(scenes: Scenes, world: World, catalog: Path) -> None:
    shares = coverage(scenes, world.region.geobox)
    assert list(shares) == [1.0] * 4
    western = replace(scenes, table=scenes.table[scenes.table["id"].str.contains("T06VVM")])
    parts = coverage(western, world.region.geobox)
    # The western granule has 60 % of the ground, which reaches 320 m further than the region of 1600 m on each side.
    assert parts.to_numpy() == pytest.approx((0.6 * 2240 - 320) / 1600, abs=0.03)
    tree = load(find(catalog, world.region, "2021/2022", ["sentinel-2", "sentinel-1"]), world.region)
    np.testing.assert_array_equal(tree["sentinel2"]["coverage"], 1.0)
    np.testing.assert_array_equal(tree["sentinel1"]["coverage"], 1.0)


def test_a_mosaic_of_a_season_has_no_sun_of_its_own(real_data: Path) -> None:
    (path, *_) = sorted((real_data / "khumbu" / "sentinel-2-l2a").glob("*/*.json"))
    item = pystac.Item.from_file(str(path))
    facts = Sentinel2().facts(item)
    assert np.isnan(facts.sun_elevation)
    assert "sun_by" not in facts.notes
    # The same item with one moment would have one.
    for name in ("start_datetime", "end_datetime"):
        item.properties.pop(name)
    assert np.isfinite(Sentinel2().facts(item).sun_elevation)
