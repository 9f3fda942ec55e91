"""Providers: every recorded item is resolved, and a user's own catalogue needs a YAML file and no code."""

from __future__ import annotations

import datetime as dt
import importlib.util
import json
import re
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np
import pystac
import pytest
import rasterio
import zarr
from made_items import optical, write
from odc.geo.geobox import GeoBox
from odc.geo.geom import BoundingBox

import glaciercube as gc
from glaciercube.catalog import PROFILES, SensorOptions, find, load_profile, signer
from glaciercube.catalog.profile_file import parse_profile
from glaciercube.catalog.resolve import resolve
from glaciercube.errors import BandError, CatalogError, ConfigError
from glaciercube.sensors import SENSORS, BandSource, Layer, LayerOptions, get_sensor
from glaciercube.simulate.world import World

ROOT = Path(__file__).parents[1]
WHEN = dt.datetime(2025, 11, 13, 10, 23, 11, tzinfo=dt.UTC)


def table_tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("provider_table", ROOT / "tools" / "provider_table.py")
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    return tool


def recorded_item(folder: Path, provider: str, collection: str, name: str) -> pystac.Item:
    path = folder / "stac_recorded" / provider / collection / "items" / f"{name}.json"
    return pystac.Item.from_dict(json.loads(path.read_text()), migrate=False)


def test_the_table_of_the_docs_is_what_the_recorded_items_give(real_data: Path) -> None:
    tool = table_tool()
    text = (ROOT / "docs" / "providers.md").read_text(encoding="utf-8")
    assert text == tool.page(text, real_data), "docs/providers.md is not up to date: run python tools/provider_table.py"


def test_every_recorded_item_is_resolved_or_refused_with_a_remedy(real_data: Path) -> None:
    tool = table_tool()
    items = list(tool.recorded(real_data))
    assert len(items) >= 50
    rows = [tool.describe(*each) for each in items]
    for row in rows:
        assert "unresolved" not in row.values(), row
        if row["collection"] == "sentinel-1-grd":
            assert re.match("refused: .*raw Sentinel-1 GRD.*: use a terrain-corrected collection", row["bands"]), row
        else:
            assert "refused" not in row["bands"], row
            assert row["CRS"].startswith("EPSG:"), row
    # Each collection of each provider that was recorded, and no other, has a profile.
    assert {each[:2] for each in items} == {(name, key) for name in PROFILES for key in PROFILES[name].collections}


def test_a_flag_takes_the_declared_offset_back(real_data: Path) -> None:
    item = recorded_item(real_data, "earth-search", "sentinel-2-l2a", "S2B_24MUA_20250731_0_L2A")
    assert item.properties["earthsearch:boa_offset_applied"] is True
    assert item.assets["red"].extra_fields["raster:bands"][0]["offset"] == -0.1
    facts, bands = resolve(item, get_sensor("sentinel-2"), (), PROFILES["earth-search"], "sentinel-2-l2a")
    assert facts.offset == 0.0
    assert facts.notes["offset_policy"] == "removed-if-flag"
    assert bands["red"].scale == 1e-4
    del item.properties["earthsearch:boa_offset_applied"]
    facts, _ = resolve(item, get_sensor("sentinel-2"), (), PROFILES["earth-search"], "sentinel-2-l2a")
    assert facts.offset == -0.1


def test_bands_of_one_zarr_group_have_their_own_paths_and_pixel_sizes(real_data: Path) -> None:
    name = "S2A_MSIL2A_20251008T100041_N0511_R122_T32TQM_20251008T122613"
    item = recorded_item(real_data, "cdse", "sentinel-2-l2a", name)
    facts, bands = resolve(item, get_sensor("sentinel-2"), ("rededge1",), PROFILES["cdse"], "sentinel-2-l2a")
    assert {band.asset for band in bands.values()} == {"reflectance"}
    assert {key: band.inner for key, band in bands.items() if key in ("red", "swir16", "rededge1")} == {
        "red": "r10m/b04",
        "swir16": "r20m/b11",
        "rededge1": "r20m/b05",
    }
    assert (bands["red"].resolution, bands["swir16"].resolution) == (10.0, 20.0)
    assert (bands["red"].dtype, bands["red"].nodata, bands["red"].scale, facts.offset) == ("float32", None, 1.0, 0.0)
    assert bands["red"].href("s3://b/p.zarr/measurements/reflectance").endswith("/measurements/reflectance/r10m/b04")
    assert item.assets["reflectance"].href.startswith("https://s3.explorer.eopf.copernicus.eu/esa-zarr")
    # In degrees, beside a proj:code of UTM.
    assert "proj:bbox" not in item.properties


def test_requester_pays_and_endpoints_go_with_the_band(real_data: Path) -> None:
    item = recorded_item(real_data, "earth-search", "sentinel-2-l1c", "S2B_20EPT_20250731_0_L1C")
    _, bands = resolve(item, get_sensor("sentinel-2"), (), PROFILES["earth-search"], "sentinel-2-l1c")
    assert ("AWS_REQUEST_PAYER", "requester") in bands["red"].options
    item = recorded_item(real_data, "earth-search", "cop-dem-glo-30", "Copernicus_DSM_COG_10_S90_00_W180_00_DEM")
    _, bands = resolve(item, get_sensor("dem"), (), PROFILES["earth-search"], "cop-dem-glo-30")
    assert bands["elevation"].options == ()
    assert item.assets["data"].href.startswith("https://copernicus-dem-30m.s3.")


def test_no_projection_of_raw_radar_is_kept(real_data: Path) -> None:
    from glaciercube.catalog import resolve as module

    for provider in ("earth-search", "planetary-computer"):
        folder = real_data / "stac_recorded" / provider / "sentinel-1-grd" / "items"
        for path in folder.glob("*.json"):
            item = pystac.Item.from_dict(json.loads(path.read_text()), migrate=False)
            module._mend(item, PROFILES[provider].collections["sentinel-1-grd"])
            fields = [*item.properties, *(key for asset in item.assets.values() for key in asset.extra_fields)]
            assert not [key for key in fields if key.startswith("proj:") and key != "proj:centroid"], path.name


@pytest.mark.parametrize("inner", ["", "r10m/b04"])
def test_a_zarr_array_opens_by_the_href_that_find_keeps(tmp_path: Path, inner: str) -> None:
    """A tiny store shaped like EOPF's products: GDAL opens the array that `BandSource.href` names."""
    group = zarr.open_group(tmp_path / "p.zarr", mode="w", zarr_format=2).create_group("measurements/reflectance/r10m")
    stored = np.arange(64, dtype="uint16").reshape(8, 8) + 1000
    packed: dict[str, Any] = {"_ARRAY_DIMENSIONS": ["y", "x"], "scale_factor": 1e-4, "add_offset": -0.1}
    group.create_array("b04", data=stored, chunks=(4, 4), fill_value=0, attributes=packed)
    for name, centres in (("x", 600005.0 + 10 * np.arange(8)), ("y", 5900035.0 - 10 * np.arange(8))):
        group.create_array(name, data=centres, attributes={"_ARRAY_DIMENSIONS": [name]})
    home = str(tmp_path / "p.zarr" / "measurements" / "reflectance")
    asset = home if inner else f"{home}/r10m/b04"
    profile = parse_profile(
        "url: /nowhere\ncollections: {eopf: {sensor: sentinel-2, nodata: 0, bands: {"
        + ", ".join(
            f"{band}: {{asset: a, inner: '{inner}'}}" for band in ("blue", "green", "red", "nir", "swir16", "swir22")
        )
        + "}}}",
        "eopf.yaml",
    )
    item = pystac.Item(
        "x",
        None,
        [9, 53, 9.1, 53.1],
        None,
        {"start_datetime": "2025-01-01T00:00:00Z", "end_datetime": "2025-01-01T00:00:00Z", "proj:code": "EPSG:32632"},
    )
    item.add_asset("a", pystac.Asset(asset, media_type="application/vnd.zarr"))
    _, bands = resolve(item, get_sensor("sentinel-2"), (), profile, "eopf")
    with rasterio.open(f'ZARR:"{bands["red"].href(asset)}"') as source:
        # The array has no CRS of its own: the item's stands in.
        assert source.crs is None
        assert tuple(source.transform)[:6] == (10, 0, 600000, 0, -10, 5900040)
        assert np.array_equal(source.read(1), stored)


ARRAYS = {
    "B02": "r10m/b02",
    "B03": "r10m/b03",
    "B04": "r10m/b04",
    "B08": "r10m/b08",
    "B11": "r20m/b11",
    "B12": "r20m/b12",
}
OURS = ("blue", "green", "red", "nir", "swir16", "swir22")


def eopf_store(path: Path, size: int, version: Literal[2, 3]) -> Path:
    """Reflectance as EOPF's samples keep it, growing by 1 DN from pixel to pixel; 10 m and 20 m."""
    home = zarr.open_group(path, mode="w", zarr_format=version)
    for metres in (10, 20):
        count = size * 10 // metres
        group = home.create_group(f"measurements/reflectance/r{metres}m")
        stored = (np.arange(count * count) + 1000).reshape(count, count).astype("uint16")
        for name in {array.rpartition("/")[2] for array in ARRAYS.values() if array.startswith(f"r{metres}m")}:
            group.create_array(
                name, data=stored, chunks=(8, 8), fill_value=0, attributes={"_ARRAY_DIMENSIONS": ["y", "x"]}
            )
        centres = metres * (np.arange(count) + 0.5)
        for name, values in (("x", 600000.0 + centres), ("y", 5900040.0 - centres)):
            group.create_array(name, data=values, attributes={"_ARRAY_DIMENSIONS": [name]})
    return path / "measurements" / "reflectance"


@pytest.mark.parametrize("shape", ["array per band", "one group"])
def test_scenes_in_zarr_are_read(tmp_path: Path, shape: str) -> None:
    home = eopf_store(tmp_path / "p.zarr", 32, 3 if shape == "one group" else 2)
    box = BoundingBox(600000, 5900040 - 320, 600320, 5900040, crs="EPSG:32632")
    around = box.to_crs("EPSG:4326")
    scene = optical(WHEN, tile="32TNQ", baseline="05.11", box=(around.left, around.bottom, around.right, around.top))
    scene["properties"]["proj:code"] = "EPSG:32632"
    del scene["properties"]["proj:epsg"]
    said = {"type": "application/vnd.zarr", "nodata": 0, "data_type": "uint16"}
    if shape == "one group":
        scene["assets"] = {"refl": {"href": str(home), **said}}
        bands = {ours: f"{{asset: refl, inner: {array}}}" for ours, array in zip(OURS, ARRAYS.values(), strict=True)}
    else:
        scene["assets"] = {key: {"href": str(home / array), **said} for key, array in ARRAYS.items()}
        bands = dict(zip(OURS, ARRAYS, strict=True))
    write(tmp_path / "made", [scene])
    profile = tmp_path / "eopf.yaml"
    profile.write_text(
        "url: made\ncollections: {sentinel-2-l2a: {sensor: sentinel-2, offset: baseline, scale: 0.0001, bands: {"
        + ", ".join(f"{name}: {where}" for name, where in bands.items())
        + "}}}"
    )
    region = gc.Region(name="eopf", geobox=GeoBox.from_bbox(box, resolution=10, tight=True))
    scenes = find(profile, region, "2025", ["sentinel-2"])
    red = gc.load(scenes, region)["sentinel2"].to_dataset()["red"].compute()
    expected = (np.arange(32 * 32).reshape(1, 32, 32) * 1e-4).astype("float32")
    np.testing.assert_allclose(red, expected, atol=1e-7)


NAMES = {"B02": "band2", "B03": "band3", "B04": "band4", "B08": "band8", "B11": "band11", "B12": "band12"}
RENAMED = {
    "sentinel-2-l2a": ("optical", NAMES | {"SCL": "classes"}),
    "sentinel-1-rtc": ("radar", {"vv": "co", "vh": "cross"}),
    "cop-dem-glo-30": ("heights", {"data": "z"}),
}
PROFILE = """
url: world
collections:
  optical:
    sensor: sentinel-2
    offset: baseline
    level: surface
    nodata: 0
    scale: 0.0001
    bands:
      blue: band2
      green: band3
      red: [nowhere, band4]
      nir: band8
      swir16: band11
      swir22: band12
      scl: {asset: classes, scale: 1}
  radar: {sensor: sentinel-1, nodata: -32768, bands: {vv: co, vh: cross}}
  heights: {sensor: dem, bands: {elevation: {asset: z, nodata: .nan}}}
"""


def renamed(catalog: Path, folder: Path) -> Path:
    """A copy of a world whose collections and assets have other names, and a profile that knows them."""
    home = folder / "world"
    shutil.copytree(catalog.parent, home)
    for path in home.rglob("*.json"):
        content: dict[str, Any] = json.loads(path.read_text())
        collection, assets = RENAMED.get(content.get("collection", content["id"]), ("", {}))
        if content["type"] == "Collection" and collection:
            content["id"] = collection
        elif content["type"] == "Feature" and collection:
            content["collection"] = collection
            content["assets"] = {assets[key]: asset for key, asset in content["assets"].items() if key in assets}
        path.write_text(json.dumps(content))
    profile = folder / "my-api.yaml"
    profile.write_text(PROFILE)
    return profile


def test_a_catalogue_with_names_of_its_own_is_read_through_a_yaml_file(
    world: World, catalog: Path, tmp_path: Path
) -> None:
    profile = renamed(catalog, tmp_path)
    with pytest.raises(CatalogError, match="has no collection sentinel-2-l2a"):
        find(tmp_path / "world" / "catalog.json", world.region, "2021")
    own = find(profile, world.region, "2021")
    usual = find(catalog, world.region, "2021")
    assert set(own.table["collection"]) == {"optical", "radar", "heights"}
    assert list(own.table["id"]) == list(usual.table["id"])
    trees = [gc.load(scenes, world.region).compute() for scenes in (own, usual)]
    for node in ("sentinel2", "sentinel1", "terrain"):
        for name, variable in trees[1][node].to_dataset().items():
            assert np.array_equal(trees[0][node].to_dataset()[name], variable, equal_nan=True), (node, name)
        assert set(trees[0][node].data_vars) == set(trees[1][node].data_vars)


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("url: world", "ulr: world", "the profile: unknown key 'ulr': did you mean url"),
        ("url: world", "url: ''", "url is missing"),
        ("sensor: sentinel-2\n", "sensor: sentinel2\n", "collections.optical.sensor.*did you mean sentinel-2"),
        ("blue: band2", "bleu: band2", "collections.optical.bands: unknown name 'bleu': did you mean blue"),
        ("offset: baseline", "offset: base", "collections.optical.offset: unknown name 'base': did you mean baseline"),
        ("nodata: 0", "nodata: none", "'none' is not a number"),
        ("level: surface", "distrust: [proj:epgs]", "distrust: unknown name 'proj:epgs': did you mean proj:epsg"),
        ("blue: band2", "blue: {aset: band2}", "bands.blue: unknown key 'aset': did you mean asset"),
        ("blue: band2", "blue: {inner: b02}", "bands.blue names no asset"),
        ("url: world", "url: world\noptions: {s3://b/: {AWS_SECRET_ACCESS_KEY: x}}", "unknown key 'AWS_SECRET"),
        ("url: world", "url: world\nsigning: {parameter: token}", "signing needs parameter and environment, or bearer"),
        ("url: world", "url: [world", "line 3"),
        ("url: world", "url: my-api.yaml", "url: my-api.yaml is a profile too: give the root of the STAC API"),
        (
            "url: world",
            "url: world\nsigning: {bearer: ''}",
            "signing.bearer is not the name of an environment variable",
        ),
        (
            "url: world",
            "url: world\nsigning: {bearer: [x]}",
            "signing.bearer is not the name of an environment variable",
        ),
        ("url: world", "url: world\nsigning: {parameter: '', environment: ''}", "signing.parameter is not the name of"),
        (
            "url: world",
            "url: world\nsigning: {parameter: sig, environment: 3}",
            "signing.environment is not the name of",
        ),
        ("url: world", "url: world\nname: [x]", "name: .* is not a text"),
        ("level: surface", "distrust: 3", "optical.distrust: 3 is not a list: write names in brackets"),
        ("level: surface", "distrust: proj:epsg", "optical.distrust: 'proj:epsg' is not a list"),
        ("level: surface", "alternate: [x]", "optical.alternate: .* is not a text"),
        ("level: surface", "hrefs: {a: [b]}", "optical.hrefs.a: .* is not a text"),
        ("level: surface", "dtype: uint61", "optical.dtype: unknown name 'uint61': did you mean uint16"),
        ("nodata: 0", "nodata: -9999\n    dtype: uint16", "optical.nodata: uint16 cannot hold -9999"),
        ("scale: 0.0001", "scale: nope", "optical.scale: 'nope' is not a number"),
        ("scale: 0.0001", "scale: true", "optical.scale: True is not a number"),
        ("scale: 0.0001", "scale: 0", "optical.scale: pixels cannot be read with 0"),
        ("blue: band2", "blue: []", "bands.blue names no asset"),
        ("blue: band2", "blue: {asset: ''}", "bands.blue names no asset"),
        ("blue: band2", "blue: {asset: band2, inner: [x]}", "bands.blue.inner: .* is not a text"),
        ("blue: band2", "blue: {asset: band2, offset: .inf}", "bands.blue.offset: pixels cannot be read with inf"),
    ],
)
def test_a_profile_that_is_wrong_is_refused_by_file_key_and_nearest_name(
    tmp_path: Path, before: str, after: str, words: str
) -> None:
    assert before in PROFILE
    path = tmp_path / "my-api.yaml"
    path.write_text(PROFILE.replace(before, after))
    with pytest.raises(ConfigError, match=words) as refused:
        load_profile(path)
    assert str(path) in str(refused.value)


def test_numbers_are_checked_where_no_band_is_named(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text("url: https://host\ncollections: {a: {sensor: sentinel-2, scale: nope}}")
    with pytest.raises(ConfigError, match=r"collections\.a\.scale: 'nope' is not a number"):
        load_profile(path)


def test_files_that_are_not_utf_8_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "latin.yaml"
    path.write_bytes("url: https://host/höhe".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"the profile .*latin.yaml is not text in UTF-8.*save it as UTF-8"):
        load_profile(path)
    with pytest.raises(ConfigError, match=r"the configuration .*latin.yaml is not text in UTF-8.*save it as UTF-8"):
        gc.load_config(path)


def resolved(profile: str, **fields: Any) -> dict[str, BandSource]:
    """Bands of a scene whose optical assets say these fields, as a profile of their collection has them."""
    content = optical(WHEN)
    for key in content["assets"].keys() - {"SCL"}:
        content["assets"][key] |= fields
    item = pystac.Item.from_dict(content, migrate=False)
    rules = parse_profile(f"url: /x\ncollections: {{sentinel-2-l2a: {{sensor: sentinel-2, {profile}}}}}", "p.yaml")
    return resolve(item, get_sensor("sentinel-2"), ("rededge1",), rules, "sentinel-2-l2a")[1]


@pytest.mark.parametrize("bands", ["", ", bands: {red: B04, scl: SCL}"])
def test_what_a_profile_says_of_a_collection_holds_for_every_band_but_classes(bands: str) -> None:
    found = resolved(f"nodata: -9999, scale: 0.00002, dtype: int16{bands}")
    for name, band in found.items():
        expected = ("uint8", 0, 1) if name == "scl" else ("int16", -9999, 0.00002)
        assert (band.dtype, band.nodata, band.scale) == expected, name
    # The item's own word counts more, and a band's more than the collection's.
    said = resolved(f"nodata: -9999, scale: 0.00002, dtype: int16{bands}", nodata=7, scale=0.5, data_type="uint16")
    assert {(b.dtype, b.nodata, b.scale) for n, b in said.items() if n != "scl"} == {("uint16", 7, 0.5)}
    own = resolved("nodata: -9999, dtype: int16, bands: {red: {asset: B04, nodata: 3, dtype: float32}}")
    assert (own["red"].dtype, own["red"].nodata, own["blue"].nodata) == ("float32", 3, -9999)


def test_a_layer_does_not_take_what_a_profile_says_of_a_sensor() -> None:
    item = pystac.Item.from_dict(optical(WHEN), migrate=False)
    rules = parse_profile(
        "url: /x\ncollections: {sentinel-2-l2a: {sensor: sentinel-2, nodata: 9, scale: 0.5, offset: none}}", "p.yaml"
    )
    layer = Layer("water", LayerOptions("sentinel-2-l2a", "B03", "1", offset=0.25))
    facts, bands = resolve(item, layer, (), rules, "sentinel-2-l2a")
    assert (bands["water"].nodata, bands["water"].scale, facts.offset) == (None, 1.0, 0.25)


@pytest.mark.parametrize(
    ("nodata", "dtype"),
    [("nan", "uint16"), (-9999, "uint16"), (-9999, None), (70000, "uint16"), (0.5, "int16"), ("-inf", "int32")],
)
def test_a_nodata_that_stored_pixels_cannot_have_leaves_the_scene_out(
    nodata: float | str, dtype: str | None, tmp_path: Path
) -> None:
    said = {"nodata": nodata, **({"data_type": dtype} if dtype else {})}
    with pytest.raises(
        BandError, match=rf"band 'blue' with .*, which {dtype or 'uint16'} cannot hold.*dtype for asset"
    ):
        resolved("offset: none", **said)
    good, bad = (optical(WHEN + dt.timedelta(days=days)) for days in (0, 5))
    for asset in bad["assets"].values():
        asset["raster:bands"] = [said]
    region = gc.Region.from_bbox((86.78, 27.95, 86.85, 28.0), resolution=60)
    scenes = find(write(tmp_path / "made", [good, bad]), region, "2025", ["sentinel-2"])
    assert list(scenes.table["id"]) == [good["id"]]
    assert "cannot hold" in scenes.left_out["reason"].iloc[0]


@pytest.mark.parametrize(("nodata", "dtype"), [(-9999, "int16"), ("nan", "float32"), (-3.4028235e38, "float32")])
def test_a_nodata_that_stored_pixels_can_have_is_taken(nodata: float | str, dtype: str) -> None:
    band = resolved("offset: none", nodata=nodata, data_type=dtype)["red"]
    assert (band.dtype, band.nodata) == (dtype, None if nodata == "nan" else nodata)


def test_shipped_profiles_name_bands_that_the_sensors_know() -> None:
    assert set(PROFILES) == {"planetary-computer", "earth-search", "cdse"}
    for profile in PROFILES.values():
        assert profile.credentials
        for name, collection in profile.collections.items():
            required = {band.name for band in SENSORS[collection.sensor].bands if band.required}
            assert required <= set(collection.bands), (profile.name, name)
    with pytest.raises(KeyError):
        PROFILES["planetary computer"]


def test_a_token_of_the_environment_is_added_when_an_asset_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CatalogError, match="environment variable MY_TOKEN is not set"):
        signer("query:token=$MY_TOKEN")
    monkeypatch.setenv("MY_TOKEN", "a b")
    sign = signer("query:token=$MY_TOKEN")
    assert sign is not None
    assert sign("https://host/a.tif") == "https://host/a.tif?token=a%20b"
    assert sign("https://host/a.tif?x=1") == "https://host/a.tif?x=1&token=a%20b"
    assert sign("s3://bucket/a.tif") == "s3://bucket/a.tif"
    monkeypatch.setenv("MY_TOKEN", "renewed")
    assert sign("https://host/a.tif").endswith("renewed")
    assert signer("") is None
    assert parse_profile("url: /a\nsigning: {bearer: MY_TOKEN}", "p.yaml").signing == "bearer:$MY_TOKEN"
    assert signer("bearer:$MY_TOKEN") is None
    for wrong in ("query:token", "sas"):
        with pytest.raises(CatalogError, match="unknown way of signing"):
            signer(wrong)


def test_unknown_bands_are_refused_with_the_nearest_name(world: World, catalog: Path) -> None:
    with pytest.raises(ConfigError, match=r"sentinel-2 has no band 'rededge'.*did you mean rededge"):
        find(catalog, world.region, "2021", {"sentinel-2": SensorOptions(bands=("rededge",))})
    with pytest.raises(ConfigError, match=r"not options of sentinel-2.*write them under sentinel-1"):
        find(catalog, world.region, "2021", {"sentinel-2": SensorOptions(orbit="ascending")})
