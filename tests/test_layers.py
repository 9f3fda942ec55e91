"""Layers of the user's own: from a STAC collection with a declared unit into the tree, the cube and a model."""

from __future__ import annotations

import datetime as dt
import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pystac
import pytest
import rasterio.warp
import torch
import xarray as xr
from odc.geo.geobox import GeoBox

from glaciercube.campaign import explain, make_plan, run
from glaciercube.catalog import Scenes, SensorOptions, find
from glaciercube.config import parse_config
from glaciercube.cube import ComposeOptions, LoadOptions, compose, load
from glaciercube.cube.load import _BACKENDS
from glaciercube.errors import BandError, CatalogError, ConfigError, EmptySearchError
from glaciercube.inference import predict
from glaciercube.models import load_model
from glaciercube.models.base import GlacierModule, Masked, Model
from glaciercube.models.contract import Contract, Modality
from glaciercube.models.fusion_unet import FusionUNet, fusion_contract
from glaciercube.reading import backend_odc
from glaciercube.reading.request import Request
from glaciercube.sensors import Layer, LayerOptions, resolve_bands
from glaciercube.simulate.cog import write_cog
from glaciercube.simulate.world import World
from glaciercube.store import StoreOptions, open_store, provenance_of

COHERENCE = LayerOptions("s1-coherence", "coh12", unit="1", valid_range=(0.0, 1.0), long_name="12-day coherence")
THINNING = LayerOptions("dhdt", "rate", unit="m a-1", static=True)
KIND = LayerOptions("ground-kind", "map", unit="1", categorical=True, nodata=255)
# Acquisitions of the pairs; 2021-08-09 is two days before the world's first Sentinel-2 scene.
PAIRS = [dt.datetime(2021, 8, 3), dt.datetime(2021, 8, 30), dt.datetime(2022, 2, 1)]  # noqa: DTZ001


def item(folder: Path, name: str, pixels: npt.NDArray[Any], grid: GeoBox, key: str, **fields: Any) -> pystac.Item:
    """A scene with one file on a grid."""
    write_cog(folder / f"{name}.tif", pixels, grid.transform, str(grid.crs), nodata=fields.pop("tag", None))
    west, south, east, north = rasterio.warp.transform_bounds(str(grid.crs), "EPSG:4326", *grid.boundingbox)
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    start, end = fields.pop("start"), fields.pop("end", None)
    scene = pystac.Item(
        name,
        {"type": "Polygon", "coordinates": [ring]},
        [west, south, east, north],
        None if end else start,
        {"proj:code": str(grid.crs), "proj:shape": list(grid.shape), "proj:transform": list(grid.transform)[:6]},
        start_datetime=start if end else None,
        end_datetime=end,
    )
    asset = pystac.Asset(str(folder / f"{name}.tif"), extra_fields={"raster:bands": [fields]} if fields else {})
    scene.add_asset(key, asset)
    return scene


def coherence(grid: GeoBox, number: int) -> npt.NDArray[np.float32]:
    """What the layer holds at each pixel, by position: stored as counts of 0.001."""
    y, x = np.indices(tuple(grid.shape))
    values = ((x * 7 + y * 13 + number * 101) % 1200) / 1000
    values[:3] = np.nan
    return np.asarray(values, dtype="float32")


@pytest.fixture(scope="module")
def layers(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A static catalogue with three collections beside those of the world, on the world's grid."""
    folder, grid = tmp_path_factory.mktemp("layers"), world.region.geobox
    root = pystac.Catalog("mine", "layers of my own")
    everywhere = pystac.Extent(
        pystac.SpatialExtent([-180.0, -90.0, 180.0, 90.0]),
        pystac.TemporalExtent([[None, None]]),  # type: ignore[arg-type]
    )
    found = {name: pystac.Collection(name, name, everywhere) for name in ("s1-coherence", "dhdt", "ground-kind")}
    for number, start in enumerate(PAIRS):
        stored = np.nan_to_num(coherence(grid, number) * 1000, nan=-1).round().astype("int16")
        days = {"start": start, "end": start + dt.timedelta(days=12)}
        # Two tiles of one moment, side by side.
        for part, columns in (("west", slice(0, 50)), ("east", slice(40, 80))):
            tile = grid[:, columns]
            pixels = stored[:, columns]
            scene = item(
                folder, f"coh-{number}-{part}", pixels, tile, "coh12", nodata=-1, scale=0.001, data_type="int16", **days
            )
            found["s1-coherence"].add_item(scene)
    bare = item(folder, "coh-without", stored, grid, "other", start=PAIRS[0] + dt.timedelta(days=1))
    found["s1-coherence"].add_item(bare)
    y, x = np.indices((80, 80))
    for name, rows in (("north", slice(0, 44)), ("south", slice(40, 80))):
        rate = (0.01 * (x - y)).astype("float32")[rows]
        year = 2000 if name == "north" else 2019
        found["dhdt"].add_item(item(folder, f"dhdt-{name}", rate, grid[rows, :], "rate", start=dt.datetime(year, 1, 1)))  # noqa: DTZ001
    for number, start in enumerate(PAIRS[:2]):
        kinds = ((x // 10 + number) % 4).astype("uint8")
        kinds[number * 20 : number * 20 + 10] = 255
        found["ground-kind"].add_item(item(folder, f"kind-{number}", kinds, grid, "map", start=start, tag=255))
    root.add_children(found.values())
    root.normalize_and_save(str(folder / "stac"), pystac.CatalogType.SELF_CONTAINED)
    return folder / "stac" / "catalog.json"


@pytest.fixture(scope="module")
def joined(layers: Path, catalog: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The world's own catalogue, with the user's collections in it."""
    folder = tmp_path_factory.mktemp("joined")
    content = json.loads(catalog.read_text())
    for link in content["links"]:
        if link["rel"] == "child":
            link["href"] = str(catalog.parent / link["href"])
    for child in layers.parent.glob("*/collection.json"):
        shutil.copytree(child.parent, folder / child.parent.name)
        content["links"].append({"rel": "child", "href": f"./{child.parent.name}/collection.json"})
    (folder / "catalog.json").write_text(json.dumps(content))
    return folder / "catalog.json"


@pytest.fixture(scope="module")
def scenes(world: World, joined: Path) -> Scenes:
    wanted = {"sentinel-2": SensorOptions(), "coherence": COHERENCE, "thinning": THINNING, "kind": KIND}
    return find(joined, world.region, "2021/2022", wanted)


def test_layers_land_in_the_tree_with_their_unit_and_their_own_times(scenes: Scenes, world: World) -> None:
    tree = load(scenes, world.region, LoadOptions(cell=32))
    assert set(tree["layers"].children) == {"coherence", "thinning", "kind"}
    found = tree["layers/coherence"]["coherence"].compute()
    assert found.dims == ("time", "y", "x")
    assert found.dtype == "float32"
    assert (found.attrs["units"], found.attrs["long_name"]) == ("1", "12-day coherence")
    # A pair is dated in the middle of its two acquisitions.
    np.testing.assert_array_equal(found["time"], np.array(PAIRS, "datetime64[ns]") + np.timedelta64(6, "D"))
    for number in range(3):
        wanted = coherence(world.region.geobox, number)
        wanted[wanted > 1] = np.nan
        assert np.isnan(wanted[10:]).any()
        np.testing.assert_allclose(found[number], wanted, atol=1e-6)
    rate = tree["layers/thinning"]["thinning"].compute()
    assert rate.dims == ("y", "x")
    assert rate.attrs["units"] == "m a-1"
    y, x = np.indices((80, 80))
    np.testing.assert_array_equal(rate, (0.01 * (x - y)).astype("float32"))
    assert tree["layers/kind"]["kind"].isel(time=1).compute().isnull().sum() == 10 * 80


def test_scenes_without_the_asset_are_left_out_with_the_reason(scenes: Scenes) -> None:
    (reason,) = scenes.left_out.loc[scenes.left_out["id"] == "coh-without", "reason"]
    assert "no asset for band 'coherence' (looked for coh12; it has other)" in reason


def test_a_snapshot_holds_what_its_layers_are(scenes: Scenes, world: World, tmp_path: Path) -> None:
    again = Scenes.load(scenes.save(tmp_path / "scenes.parquet"))
    assert again.fingerprint == scenes.fingerprint
    assert again.sensor("coherence") == Layer("coherence", COHERENCE)
    xr.testing.assert_identical(
        load(again, world.region)["layers/coherence"].to_dataset().compute(),
        load(scenes, world.region)["layers/coherence"].to_dataset().compute(),
    )
    assert "coherence (s1-coherence): 3 observations of 6 scenes" in str(scenes.completeness(world.region))


@pytest.mark.parametrize(
    "change", [{"offset": 0.01}, {"valid_range": (0.0, 0.9)}, {"scale": 0.01}, {"resampling": "nearest"}]
)
def test_what_a_layer_means_decides_the_fingerprint(
    scenes: Scenes, world: World, joined: Path, change: dict[str, Any]
) -> None:
    other = find(joined, world.region, "2021/2022", {"coherence": replace(COHERENCE, **change)})
    same = find(joined, world.region, "2021/2022", {"coherence": COHERENCE})
    assert same.fingerprint == scenes.of("coherence").fingerprint != other.fingerprint


def test_a_layer_of_another_catalogue_is_the_same(scenes: Scenes, world: World, catalog: Path, layers: Path) -> None:
    wanted = {"sentinel-2": SensorOptions(), "coherence": replace(COHERENCE, catalog=str(layers))}
    found = find(catalog, world.region, "2021/2022", wanted)
    assert found.of("coherence").fingerprint == scenes.of("coherence").fingerprint
    with pytest.raises(EmptySearchError, match=r"no scene of s1-coherence .*2023"):
        find(catalog, world.region, "2023", {"coherence": replace(COHERENCE, catalog=str(layers))})
    with pytest.raises(CatalogError, match=r"has no collection s1-coherence"):
        find(catalog, world.region, "2021", {"coherence": COHERENCE})


def test_tokens_of_one_catalogue_are_not_for_the_files_of_another(
    scenes: Scenes, world: World, catalog: Path, layers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, str] = {}

    def noted(request: Request) -> xr.Dataset:
        asked[request.node] = request.signing
        return backend_odc.read(request)

    monkeypatch.setitem(_BACKENDS, "odc", noted)
    monkeypatch.setenv("TOKEN", "x")
    wanted = {"sentinel-2": SensorOptions(), "coherence": replace(COHERENCE, catalog=str(layers))}
    elsewhere = find(catalog, world.region, "2021", wanted)
    load(replace(elsewhere, signing="bearer:$TOKEN"), world.region)
    assert asked == {"sentinel2": "bearer:$TOKEN", "layers/coherence": ""}
    load(replace(scenes.of("thinning"), signing="bearer:$TOKEN"), world.region)
    assert asked["layers/thinning"] == "bearer:$TOKEN"


def test_composed_as_companions_with_their_age(scenes: Scenes, world: World) -> None:
    tree = load(scenes, world.region)
    cube = compose(tree, ComposeOptions(max_age=60))
    own = tree["layers/coherence"]["coherence"]
    for row, time in enumerate(cube["time"].to_numpy()):
        days = (own["time"].to_numpy() - time) / np.timedelta64(1, "D")
        nearest = int(np.abs(days).argmin())
        layer = cube["coherence"].isel(time=row).compute()
        if abs(days[nearest]) <= 60:
            assert float(cube["coherence_age"][row]) == pytest.approx(days[nearest], abs=1e-3)
            np.testing.assert_array_equal(layer, own.isel(time=nearest).compute())
        else:
            assert np.isnan(cube["coherence_age"][row])
            assert layer.isnull().all()
    assert 0 < int(np.isfinite(cube["coherence_age"]).sum()) < cube.sizes["time"]
    assert cube["thinning"].dims == ("y", "x")
    assert cube["coherence"].attrs["units"] == "1"
    assert "scl" in cube


def test_the_plan_passes_over_the_companions_that_compose_passes_over(scenes: Scenes, world: World) -> None:
    """The second pair keeps one of its tiles, and covers too little."""
    part = replace(scenes, table=scenes.table[scenes.table["id"] != "coh-1-east"].reset_index(drop=True))
    options = ComposeOptions(max_age=60, min_coverage=0.8)
    cube = compose(load(part, world.region), options)
    plan = make_plan(world.region, part, load_model("ndsi"), StoreOptions("nowhere.zarr"), compose=options)
    ages = [row.age("layers/coherence", "sentinel2") for row in plan.rows]
    np.testing.assert_allclose(ages, cube["coherence_age"], atol=1e-3)
    everything = make_plan(
        world.region, part, load_model("ndsi"), StoreOptions("nowhere.zarr"), compose=replace(options, min_coverage=0)
    )
    assert plan.rows[1].members != everything.rows[1].members


def test_composed_in_windows(scenes: Scenes, world: World) -> None:
    tree = load(scenes, world.region)
    cube = compose(tree, "year").compute()
    own = tree["layers/coherence"].to_dataset()["coherence"].compute()
    np.testing.assert_allclose(cube["coherence"][0], own[:2].median("time"), rtol=1e-6)
    np.testing.assert_array_equal(cube["coherence"][1], own[2])
    # Classes have no median: the latest that is known.
    kind = tree["layers/kind"].to_dataset()["kind"].compute()
    np.testing.assert_array_equal(cube["kind"][0], kind[1].fillna(kind[0]))
    assert set(np.unique(cube["kind"][0])) <= {0.0, 1.0, 2.0, 3.0}


def test_layers_alone_make_a_cube(scenes: Scenes, world: World) -> None:
    tree = load(scenes.of("coherence"), world.region)
    cube = compose(tree)
    np.testing.assert_array_equal(cube["time"], tree["layers/coherence"]["time"])
    still = compose(load(scenes.of("thinning"), world.region))
    assert still["thinning"].dims == ("y", "x")
    assert list(still["time"].to_numpy()) == [np.datetime64("2000-01-01")]


def test_both_backends_read_layers_alike(scenes: Scenes, world: World) -> None:
    pytest.importorskip("stackstac")
    mine = Scenes(scenes.table[scenes.table["sensor"] != "sentinel-2"].reset_index(drop=True), scenes.source)
    grid = replace(world.region, geobox=world.region.geobox.zoom_to(resolution=33))
    odc, stack = (load(mine, grid, LoadOptions(cell=32, backend=backend)) for backend in ("odc", "stackstac"))
    for name in odc["layers"].children:
        xr.testing.assert_identical(
            odc["layers"][name].to_dataset().compute(), stack["layers"][name].to_dataset().compute()
        )


class _OfLayers(GlacierModule):
    """Coherent ground that thins."""

    def forward(self, dynamic: Mapping[str, Masked], static_features: Any) -> torch.Tensor:
        thins = (static_features["change"].values[:, 0] < 0).float()
        probability: torch.Tensor = dynamic["coherence"].values[:, 0].clamp(0, 1) * thins
        return probability


def test_a_model_uses_layers_by_name_from_plan_to_store(scenes: Scenes, world: World, tmp_path: Path) -> None:
    modalities = (
        Modality("coherence", ("coherence",), required=True),
        Modality("change", ("thinning",), static=True, evidence=False),
    )
    contract = Contract("of-layers", "1", "of-layers", modalities, reflectance=None)
    model = Model.from_module(contract, _OfLayers())
    plan = make_plan(
        world.region,
        scenes,
        model,
        StoreOptions(str(tmp_path / "a.zarr"), shard=64, chunk=32),
        compose=ComposeOptions(max_age=60),
    )
    assert explain(plan).scenes["coherence"] == 6
    run(plan)
    found = open_store(tmp_path / "a.zarr")
    cube = compose(load(scenes, world.region), ComposeOptions(max_age=60)).compute()
    wanted = cube["coherence"] * (cube["thinning"] < 0)
    np.testing.assert_allclose(found["glacier_probability"], wanted.transpose("time", "y", "x"), atol=0.00201)
    np.testing.assert_allclose(found["coherence_age"], cube["coherence_age"], atol=1e-3)
    used = provenance_of(found)["scenes"]
    assert any("coh-0-west" in ids for ids in used.values())
    assert all("dhdt-north" in ids for ids in used.values())


def test_elevation_change_and_velocity_reach_the_network_and_are_missed_where_they_are_missing(
    joined: Path, world: World
) -> None:
    """Rasters of rates, as Hugonnet's and ITS_LIVE's are, under the names that the fusion models know."""
    change = replace(THINNING, valid_range=(-20.0, 20.0), long_name="elevation change")
    # Stored in metres a day, and known on the slower half of the map alone.
    speed = replace(THINNING, unit="m/year", scale=365.25, valid_range=(0.0, 150.0))
    motion = {"elevation_change": change, "velocity": speed}
    found = find(joined, world.region, "2021", {"sentinel-2": SensorOptions(), **motion})
    cube = compose(load(found, world.region)).isel(time=slice(0, 1)).compute()
    assert cube["velocity"].dims == ("y", "x")
    assert cube["velocity"].attrs["units"] == "m/year"
    missing = cube["velocity"].isnull().to_numpy()
    assert 0.2 < missing.mean() < 0.9
    contract = fusion_contract(widths=(4, 8))
    model = Model.from_module(contract, FusionUNet(contract).eval())
    names = [modality.name for modality in contract.select([str(name) for name in cube.data_vars])]
    assert {"optical", "elevation_change", "velocity"} <= set(names)
    whole = predict(cube, model)["glacier_probability"].compute()
    for name in motion:
        without = predict(cube.drop_vars(name), model)["glacier_probability"].compute()
        assert np.isfinite(without).sum() == np.isfinite(whole).sum()
        assert float(abs(whole - without).max()) > 1e-4, name
    # What is missing has no value: the same as if there were no such layer, but for what neighbours tell.
    nowhere = cube.assign(velocity=cube["velocity"] * np.float32(np.nan))
    apart = (
        predict(nowhere, model)["glacier_probability"].compute()
        - predict(cube.drop_vars("velocity"), model)["glacier_probability"].compute()
    )
    assert float(abs(apart).max()) < 1e-5


def test_layers_that_models_know_have_their_unit() -> None:
    for name, unit in (("velocity", "m d-1"), ("elevation_change", "m"), ("coherence", "dB")):
        with pytest.raises(ConfigError, match=f"models take {name} in"):
            Layer(name, replace(THINNING, unit=unit))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"unit": ""}, 'a layer has no unit: declare the unit of its values (unit: "1"'),
        ({"unit": " "}, "a layer has no unit"),
        ({"collection": ""}, "a layer names no collection"),
        ({"asset": ""}, "a layer names no asset"),
        ({"valid_range": (1.0, 0.0)}, "valid_range 1.0 to 0.0 holds nothing"),
        ({"categorical": True, "resampling": "bilinear"}, "bilinear mixes classes: choose nearest or mode"),
        ({"resampling": "lanczos"}, "there is no resampling 'lanczos'"),
    ],
)
def test_a_layer_that_says_too_little_is_refused(change: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        replace(COHERENCE, **change)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    "name", ["red", "vv", "elevation", "sentinel-2", "dem", "slope", "hillshade", "coherence_age", "x"]
)
def test_names_that_the_cube_uses_are_taken(name: str) -> None:
    with pytest.raises(ConfigError, match=r"is taken|cannot be named"):
        Layer(name, COHERENCE)


def test_an_items_word_on_nodata_is_not_contradicted(world: World, joined: Path) -> None:
    with pytest.raises(EmptySearchError, match=r"says that -1 means no data, and the layer coherence says -9999"):
        find(joined, world.region, "2021/2022", {"coherence": replace(COHERENCE, nodata=-9999)})


def test_whole_numbers_without_nodata_are_read_with_nan() -> None:
    """An item that says uint8 and no nodata: 0 outside of it would be a value."""
    asset = pystac.Asset("a.tif", extra_fields={"raster:bands": [{"data_type": "uint8"}]})
    scene = pystac.Item("a", None, None, PAIRS[0], {})
    scene.add_asset("coh12", asset)
    source = resolve_bands(scene, Layer("coherence", COHERENCE))["coherence"]
    assert (source.dtype, source.nodata) == ("float32", None)
    with pytest.raises(BandError, match="no asset for band"):
        resolve_bands(scene, Layer("thinning", THINNING))


CONFIG = """region: {bbox: [0, 45, 0.1, 45.1], resolution: 20}
catalog: somewhere
time: 2024
store: out.zarr
layers:
  coherence: {collection: s1-coherence, asset: coh12, unit: 1, valid_range: [0, 1]}
  dhdt:
    collection: dhdt
    asset: rate
    unit: m a-1
    static: true
    catalog: https://me:secret@example.com/catalog.json?token=abc
"""


def test_layers_in_the_configuration() -> None:
    config = parse_config(CONFIG)
    assert config.layers["coherence"] == LayerOptions("s1-coherence", "coh12", unit="1", valid_range=(0, 1))
    assert config.layers["dhdt"].static
    kept = json.dumps(config.as_dict())
    assert "example.com/catalog.json" in kept
    assert "secret" not in kept
    assert "abc" not in kept


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (", unit: 1", "", "line 6: a layer has no unit"),
        ("    unit: m a-1\n", "", "line 7: a layer has no unit"),
        ("  dhdt:", "  slope:", "line 7: the name 'slope' is taken"),
        ("static: true", "statik: true", "line 11: unknown key 'layers.dhdt.statik': did you mean static?"),
        ("unit: m a-1", "unit: [m]", "line 10: layers.dhdt.unit"),
        ("static: true", "resampling: lanczos", "line 11: layers.dhdt.resampling"),
    ],
)
def test_mistakes_in_layers_are_told_with_their_line(old: str, new: str, told: str) -> None:
    assert old in CONFIG
    with pytest.raises(ConfigError) as caught:
        parse_config(CONFIG.replace(old, new))
    assert told in str(caught.value)
