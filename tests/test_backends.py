"""stackstac reads the same cube as odc-stac: bit for bit, on any grid; and refuses in words what it cannot do."""

from __future__ import annotations

import json
import pickle
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pystac
import pytest
import rasterio
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling
from rasters import COLUMNS, CRS, NORTH, PIXEL, ROWS, WEST, make, request_of

from glaciercube.campaign import make_plan
from glaciercube.catalog import Scenes, find
from glaciercube.config import parse_config
from glaciercube.cube import LoadOptions, load
from glaciercube.errors import ConfigError, CubeError, ReadError
from glaciercube.models import load_model
from glaciercube.reading import backend_odc, backend_stackstac
from glaciercube.reading.request import Request
from glaciercube.region import Region
from glaciercube.simulate.world import World
from glaciercube.store import StoreOptions


@pytest.fixture(scope="module")
def scenes(world: World, catalog: Path) -> Scenes:
    return find(catalog, world.region, "2021")


def regions(world: World) -> dict[str, Region]:
    grid, polar = world.region.geobox, cast("Any", 33)
    fine = GeoBox((grid.shape[0] * 2, grid.shape[1] * 2), grid.affine @ Affine.scale(0.5), grid.crs)
    shifted = GeoBox((61, 70), grid.affine @ Affine.translation(0.3, 0.6) @ Affine.scale(1.05), grid.crs)
    return {
        "native, 20 m": world.region,
        "native, 10 m": replace(world.region, geobox=fine[10:70, 51:111]),
        "beside the lattice, 21 m": replace(world.region, geobox=shifted),
        "60 m": replace(world.region, geobox=grid.zoom_to(resolution=60).pad(10)),
        "polar, 33 m": replace(world.region, geobox=grid.to_crs("EPSG:3413", resolution=polar)),
        # Mostly beside the scenes.
        "edge": replace(world.region, geobox=grid.translate_pix(55, 60)),
    }


@pytest.mark.parametrize(
    "name", ["native, 20 m", "native, 10 m", "beside the lattice, 21 m", "60 m", "polar, 33 m", "edge"]
)
def test_both_backends_give_the_same_tree(scenes: Scenes, world: World, name: str) -> None:
    """All sensors: mosaics of two granules, two baselines, a duplicate, tiles of elevation, classes."""
    pytest.importorskip("stackstac")
    region = regions(world)[name]
    odc, stack = (load(scenes, region, LoadOptions(cell=32, backend=backend)) for backend in ("odc", "stackstac"))
    assert set(odc.children) == set(stack.children) == {"sentinel2", "sentinel1", "terrain"}
    for node in odc.children:
        mine, other = odc[node].to_dataset(), stack[node].to_dataset()
        assert {k: v.chunks for k, v in mine.data_vars.items()} == {k: v.chunks for k, v in other.data_vars.items()}
        mine = mine.compute(scheduler="synchronous")
        assert all(mine[variable].notnull().any() for variable in mine.data_vars)
        xr.testing.assert_identical(mine, other.compute(scheduler="synchronous"))


def overlapping(folder: Path, kind: str, nodata: float) -> Request:
    """Two scenes of one observation over the same ground, and one of another; both first ones have holes."""
    files = [make(folder, f"{kind}_{name}", kind, nodata, "none") for name in ("b_upper", "a_lower", "later")]
    grid = GeoBox((90, 100), Affine(PIXEL, 0, WEST, 0, -PIXEL, NORTH), CRS)
    single = request_of(files[:1], grid, 32, {files[0].name: "nearest"})
    items = []
    for number, made in enumerate(files):
        item = single.items[0].clone()
        item.id = made.name
        item.assets["dn"] = pystac.Asset(str(made.path), extra_fields=item.assets.pop(files[0].name).extra_fields)
        if number == 2:
            item.datetime = item.datetime and item.datetime.replace(year=2025)
        items.append(item)
    source = replace(files[0].source, band="dn", asset="dn")
    return replace(single, items=tuple(items), bands=(source,), resampling={"dn": "nearest"})


@pytest.mark.parametrize(("kind", "nodata"), [("uint16", 0), ("float32", -32768), ("float32", float("nan"))])
def test_where_two_scenes_have_a_pixel_the_first_by_identifier_wins(tmp_path: Path, kind: str, nodata: float) -> None:
    pytest.importorskip("stackstac")
    request = overlapping(tmp_path, kind, nodata)
    found = backend_stackstac.read(request)
    xr.testing.assert_identical(found.compute(), backend_odc.read(request).compute())
    pixels = {}
    for item in request.items:
        with rasterio.open(item.assets["dn"].href) as source:
            pixels[item.id.split("_", 1)[1]] = source.read(1, window=((0, 90), (0, 100))).astype(float)
    held = {name: np.isfinite(layer) & (layer != nodata) for name, layer in pixels.items()}
    merged = np.where(held["a_lower"], pixels["a_lower"], pixels["b_upper"])
    assert (held["a_lower"] & held["b_upper"]).any()
    assert (~held["a_lower"] & held["b_upper"]).any()
    np.testing.assert_array_equal(found["dn"][0], merged.astype(kind))
    np.testing.assert_array_equal(found["dn"][1], pixels["later"].astype(kind))


def test_a_scene_without_projection_or_band_is_read_alike(tmp_path: Path) -> None:
    pytest.importorskip("stackstac")
    files = [make(tmp_path, "dn", "uint16", 0), make(tmp_path, "classes", "uint8", 0, categorical=True)]
    grid = GeoBox((90, 100), Affine(21, 0, WEST - 100, 0, -21, NORTH), CRS)
    request = request_of(files, grid, 48, {"dn": "average", "classes": "nearest"}, projected=False)
    other = request.items[0].clone()
    other.id = "without-classes"
    del other.assets["classes"]
    assert other.datetime
    other.datetime = other.datetime.replace(year=2025)
    request = replace(request, items=(*request.items, other))
    found = backend_stackstac.read(request)
    xr.testing.assert_identical(found.compute(), backend_odc.read(request).compute())
    assert not found["classes"][1].any()
    assert found["classes"][0].any()


def test_a_failed_read_raises_and_names_the_file(scenes: Scenes, world: World, tmp_path: Path) -> None:
    pytest.importorskip("stackstac")
    broken = tmp_path / "B04.tif"
    broken.write_bytes(b"not a tiff")
    table = scenes.of("sentinel-2").table.copy()
    item = table.loc[0, "item"]
    href = pystac.Item.from_dict(json.loads(item), migrate=False).assets["B04"].href
    table.loc[0, "item"] = item.replace(href, str(broken))
    options = LoadOptions(backend="stackstac")
    cube = load(Scenes(table, scenes.source), world.region, options)["sentinel2"]
    with pytest.raises(ReadError, match=r"B04"):
        cube["red"].isel(time=0).compute()
    assert cube["red"].isel(time=1).notnull().any()
    assert cube["blue"].isel(time=0).notnull().any()


def test_nothing_is_read_until_asked_and_the_graph_travels(
    scenes: Scenes, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("stackstac")
    monkeypatch.setattr(rasterio, "open", lambda *_, **__: pytest.fail("a file was opened while planning"))
    red = load(scenes, world.region, LoadOptions(cell=32, backend="stackstac"))["sentinel2"]["red"]
    monkeypatch.undo()
    part = red.isel(time=0, y=slice(0, 8), x=slice(0, 8))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(part)).compute(), part.compute())  # noqa: S301


#: Largest difference between stackstac's own reader and ours, as a share of the range of values.
STOCK_TOLERANCE = {10: 0.0, 14: 0.01, 20: 0.06, 21: 0.06, 60: 0.06}


@pytest.mark.parametrize("resolution", STOCK_TOLERANCE)
def test_stackstacs_own_reader_agrees(tmp_path: Path, resolution: int) -> None:
    """A second opinion that shares no code of ours: exact on the files' grid, near elsewhere (it reads no overview)."""
    stackstac = pytest.importorskip("stackstac")
    made = make(tmp_path, "dn", "uint16", 0)
    count = int(min(ROWS, COLUMNS) * PIXEL // resolution) - 1
    grid = GeoBox((count, count), Affine(resolution, 0, WEST, 0, -resolution, NORTH), CRS)
    ours = backend_odc.read(request_of([made], grid, count, {"dn": "bilinear"}))["dn"][0].compute()
    item = request_of([made], grid, count, {"dn": "bilinear"}).items[0].to_dict()
    item["properties"]["proj:epsg"] = 32606
    stock = stackstac.stack(
        [item],
        assets=["dn"],
        epsg=32606,
        resolution=resolution,
        bounds=tuple(grid.boundingbox),
        snap_bounds=False,
        resampling=Resampling.bilinear,
        dtype=np.dtype("uint16"),
        fill_value=np.uint16(0),
        rescale=False,
        properties=False,
        band_coords=False,
        errors_as_nodata=(),
    )[0, 0].compute()
    both = (ours.to_numpy() > 0) & (stock.to_numpy() > 0)
    assert both.mean() > 0.5
    assert np.mean((ours.to_numpy() > 0) == (stock.to_numpy() > 0)) > 0.97
    difference = np.abs(ours.to_numpy().astype(float) - stock.to_numpy())[both]
    assert difference.mean() <= 0.01 * 9000
    assert difference.max() <= STOCK_TOLERANCE[resolution] * 9000


def test_a_missing_stackstac_is_told_with_the_command(
    scenes: Scenes, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "stackstac", None)
    with pytest.raises(ConfigError, match="not installed: pip install --no-deps stackstac"):
        load(scenes, world.region, LoadOptions(backend="stackstac"))


def test_a_store_may_be_continued_with_the_other_backend(scenes: Scenes, world: World) -> None:
    def keys(load: LoadOptions) -> tuple[str, ...]:
        return make_plan(world.region, scenes, load_model("ndsi"), StoreOptions("nowhere.zarr"), load=load).keys

    assert keys(LoadOptions()) == keys(LoadOptions(backend="stackstac")) != keys(LoadOptions(cell=64))


def test_a_grid_without_a_code_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("stackstac")
    made = make(tmp_path, "dn", "uint16", 0, "none")
    azimuthal = "+proj=laea +lat_0=84.5 +lon_0=10 +datum=WGS84 +units=m"
    grid = GeoBox((9, 9), Affine(20, 0, 0, 0, -20, 0), azimuthal)
    with pytest.raises(CubeError, match=r"without an EPSG code: use load: \{backend: odc\}"):
        backend_stackstac.read(request_of([made], grid, 9, {"dn": "nearest"}))


def test_backend_is_an_option_of_the_configuration() -> None:
    text = """
region: {bbox: [0, 45, 0.1, 45.1], resolution: 20}
catalog: somewhere
time: 2024
store: out.zarr
load: {backend: BACKEND}
"""
    assert parse_config(text.replace("BACKEND", "stackstac")).load.backend == "stackstac"
    with pytest.raises(ConfigError, match=r"line 6.*'odc' or 'stackstac'"):
        parse_config(text.replace("BACKEND", "gdal"))
    with pytest.raises(ConfigError, match="there is no backend 'gdal': choose odc or stackstac"):
        LoadOptions(backend="gdal")  # type: ignore[arg-type]
