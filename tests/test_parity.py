"""Each pixel of the cube is what `rasterio.warp.reproject` makes of the same overview on the same cell, bit for bit."""

from __future__ import annotations

import functools
import importlib.util
import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.warp
import xarray as xr
from affine import Affine
from conftest import FULL
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from rasters import CRS, NORTH, PIXEL, WEST, Made, make, request_of, warped

from glaciercube.reading import backend_odc, backend_stackstac
from glaciercube.reading.request import _resampling
from glaciercube.reading.warp import choose_overview, overview_factor, warp_onto

CELL, SIZE = 48, 80
RESOLUTIONS = (10, 14, 19, 20, 21, 60, 300)
CRSES = (CRS, "EPSG:32605", "EPSG:3413")
#: Pixel size of the grid -> by how much the overview shrinks the file's 10 m, where a file has it.
SHRINKS = {10: 1, 14: 1, 19: 1, 20: 2, 21: 2, 60: 4, 300: 16}
#: At 60 degrees north a metre of this map is 0.975 m of UTM: the overview of 20 m is coarser than its 20 m.
SHRINKS_POLAR = {**SHRINKS, 20: 1}
METHODS = (("average", "mode"), ("bilinear", "nearest"), ("cubic", "nearest"), ("nearest", "nearest"))

INSTALLED = importlib.util.find_spec("stackstac") is not None
BACKENDS = [
    pytest.param(backend_odc.read, id="odc"),
    pytest.param(
        backend_stackstac.read,
        id="stackstac",
        marks=pytest.mark.skipif(not INSTALLED, reason="stackstac is not installed"),
    ),
]


def test_stackstac_is_here_to_be_tested() -> None:
    assert INSTALLED, "the second backend's tests are skipped: pip install --no-deps stackstac, as make test does"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Made]:
    folder = tmp_path_factory.mktemp("rasters")
    return [
        make(folder, "dn", "uint16", 0, "cog"),
        make(folder, "dn_silent", "uint16", 0, silent=True),
        make(folder, "power_flat", "float32", -32768, "none"),
        make(folder, "height", "float32", float("nan")),
        make(folder, "classes", "uint8", 0, categorical=True),
        make(folder, "power", "float32", -32768),
        make(folder, "height_flat", "float32", float("nan"), "none"),
        make(folder, "classes_flat", "uint8", 0, "none", categorical=True),
    ][: None if FULL else 5]


def grid(crs: str, resolution: float, shift: float = 0.0) -> GeoBox:
    """A grid that begins outside the file's corner: some cells are full, others are not."""
    (x,), (y,) = rasterio.warp.transform(CRS, crs, [WEST], [NORTH])
    if crs == CRS:
        x, y = WEST - 7 * PIXEL, NORTH + 5 * PIXEL
    elif crs == "EPSG:3413":
        # Turned by a hundred degrees there: the file lies around its corner.
        x, y = x - 50 * resolution, y + 40 * resolution
    else:
        x, y = x - 5 * resolution, y + 11 * resolution
    return GeoBox((SIZE, SIZE), Affine(resolution, 0, x + shift, 0, -resolution, y - shift), crs)


def level(made: Made, crs: str, resolution: int) -> int | None:
    """Index of the overview that must be read."""
    wanted = (SHRINKS_POLAR if crs == "EPSG:3413" else SHRINKS)[resolution]
    there = [index for index, shrink in enumerate(made.shrinks) if 1 < shrink <= wanted]
    return there[-1] if there else None


def cells(geobox: GeoBox) -> list[tuple[slice, slice, GeoBox]]:
    """The lattice, written out: cells anchored at the grid's origin."""
    a = geobox.transform
    found = []
    for row, column in itertools.product(range(0, SIZE, CELL), repeat=2):
        y, x = slice(row, min(row + CELL, SIZE)), slice(column, min(column + CELL, SIZE))
        corner = Affine(a.a, 0, a.c + column * a.a, 0, a.e, a.f + row * a.e)
        found.append((y, x, GeoBox((y.stop - y.start, x.stop - x.start), corner, geobox.crs)))
    return found


@pytest.mark.parametrize("shift", [0.0, 3.7])
@pytest.mark.parametrize("crs", CRSES)
@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_each_cell_is_what_rasterio_makes_of_the_same_overview(
    files: list[Made], crs: str, resolution: int, shift: float
) -> None:
    geobox = grid(crs, resolution, shift)
    # In the quick form the methods take turns on grids beside the files' grid.
    methods = METHODS if FULL else METHODS[:2] if not shift else METHODS[2 + RESOLUTIONS.index(resolution) % 2 :][:1]
    for continuous, classes in methods:
        resampling = {made.name: classes if made.categorical else continuous for made in files}
        raw = (
            backend_odc.read(request_of(files, geobox, CELL, resampling)).isel(time=0).compute(scheduler="synchronous")
        )
        for made in files:
            pixels, held = raw[made.name].to_numpy(), 0
            assert pixels.dtype == made.dtype
            for y, x, cell in cells(geobox):
                wanted = warped(made, level(made, crs, resolution), cell, resampling[made.name])
                np.testing.assert_array_equal(pixels[y, x], wanted, err_msg=f"{made.name} {resampling[made.name]}")
                held += int((np.isfinite(wanted) & (wanted != made.nodata)).sum())
            assert 30 < held < SIZE * SIZE, "neither nothing but data nor nothing but holes"


def test_the_overview_is_one_for_all_cells_of_a_file(files: list[Made]) -> None:
    with rasterio.open(files[1].path) as source:
        factors = {overview_factor(source, grid("EPSG:3413", 20.5)[y, x]) for y, x, _ in cells(grid("EPSG:3413", 20.5))}
        assert max(factors) - min(factors) < 1e-6
        assert overview_factor(source, grid(CRS, 20)) == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("factor", "overviews", "wanted"),
    [
        (1.0, [2, 4], None),
        (1.9, [2, 4], None),
        (1.97, [2, 4], 0),
        (2.0, [2, 4], 0),
        (3.9, [2, 4], 0),
        (3.95, [2, 4], 1),
        (30.0, [2, 4, 8, 16, 32], 3),
        (30.0, [], None),
        (30.0, [3, 9, 27, 81], 2),
        (0.1, [2], None),
    ],
)
def test_the_coarsest_overview_that_is_not_coarser_than_the_grid(
    factor: float, overviews: list[int], wanted: int | None
) -> None:
    assert choose_overview(factor, overviews) == wanted


def test_classes_are_not_read_from_wavelets(tmp_path: Path) -> None:
    """Reduced levels of JPEG 2000 average class numbers: 2 and 6 make 4, which is another class."""
    pixels = np.where(np.indices((512, 512)).sum(0) % 2, 2, 6).astype("uint8")
    path = tmp_path / "scl.jp2"
    profile: dict[str, Any] = {"driver": "JP2OpenJPEG", "height": 512, "width": 512, "count": 1, "dtype": "uint8"}
    profile |= {"crs": CRS, "transform": Affine(20, 0, WEST, 0, -20, NORTH), "QUALITY": 100, "REVERSIBLE": "YES"}
    with rasterio.open(path, "w", **profile) as target:
        target.write(pixels, 1)
    box = GeoBox((32, 32), Affine(80, 0, WEST, 0, -80, NORTH), CRS)
    with rasterio.open(path) as source:
        assert source.overviews(1)
    read = functools.partial(warp_onto, str(path), box, dtype="uint8", nodata=0)
    assert set(np.unique(read(resampling="mode"))) <= {2, 6}
    assert set(np.unique(read(resampling="average"))) == {4}


def test_pixels_beside_a_hole_are_not_mixed_with_it_where_the_file_is_silent(files: list[Made]) -> None:
    silent = next(made for made in files if made.silent)
    pixels = warp_onto(str(silent.path), grid(CRS, 14), resampling="bilinear", dtype="uint16", nodata=0)
    assert (pixels == 0).any()
    assert pixels[pixels > 0].min() >= 200


@pytest.mark.parametrize("wanted", [0.0, 7.0, -9999.0, float("nan")])
def test_what_is_missing_in_a_file_has_the_value_that_was_asked_for(files: list[Made], wanted: float) -> None:
    """A file says -32768 and its item another value; rasterio itself takes a 0 for "not given"."""
    read = functools.partial(warp_onto, str(files[2].path), grid(CRS, 14), resampling="average", dtype="float32")
    stored, pixels = read(nodata=-32768), read(nodata=wanted)
    np.testing.assert_array_equal(pixels, np.where(stored == -32768, np.float32(wanted), stored))
    assert (stored == -32768).any()


@pytest.mark.parametrize("resolution", [10, 14, 19, 21])
def test_a_scene_that_ends_within_a_cell_has_the_same_pixels_up_to_its_end(
    files: list[Made], tmp_path: Path, resolution: int
) -> None:
    """GDAL's bilinear kernel would be another one there: it is as wide as source and target windows differ."""
    made, ends = files[2], tmp_path / "ends.tif"
    with rasterio.open(made.path) as source, rasterio.open(ends, "w", **{**source.profile, "width": 60}) as target:
        target.write(source.read(1)[:, :60], 1)
    box = grid(CRS, resolution)[:CELL, :CELL]
    method = _resampling(replace(made.source, resolution=10.0), resolution)
    read = functools.partial(warp_onto, resampling=method, dtype="float32", nodata=made.nodata)
    whole, cut = read(str(made.path), box), read(str(ends), box)
    inside = int((7 + 60) * PIXEL // resolution) - 3
    np.testing.assert_array_equal(cut[:, :inside], whole[:, :inside])
    assert (cut[:, inside + 6 :] == made.nodata).all()
    assert (whole[:, inside + 6 :] != made.nodata).any() or inside + 6 >= CELL


@functools.lru_cache
def _whole(read: Any, files: tuple[Made, ...], resolution: int) -> tuple[xr.Dataset, xr.Dataset]:
    resampling = {made.name: "mode" if made.categorical else "cubic" for made in files}
    lazy = read(request_of(list(files), grid("EPSG:3413", resolution), CELL, resampling)).isel(time=0)
    return lazy, lazy.compute(scheduler="synchronous")


@pytest.mark.parametrize("read", BACKENDS)
@settings(deadline=None, max_examples=200 if FULL else 12)
@given(data=st.data())
def test_a_pixel_has_one_value_whichever_window_asks(files: list[Made], read: Any, data: st.DataObject) -> None:
    resolution = data.draw(st.sampled_from((10, 14, 21, 60)))
    lazy, whole = _whole(read, tuple(files[i] for i in (0, 2, 4)), resolution)
    edges = st.lists(st.integers(0, SIZE), min_size=2, max_size=2, unique=True).map(sorted)
    (top, bottom), (left, right) = data.draw(edges), data.draw(edges)
    name = data.draw(st.sampled_from(sorted(map(str, lazy.data_vars))))
    window = {"y": slice(top, bottom), "x": slice(left, right)}
    part = lazy[name].isel(window).compute(scheduler="synchronous")
    np.testing.assert_array_equal(part, whole[name].isel(window))


@pytest.mark.parametrize("resolution", [10, 14, 20])
def test_neighbouring_regions_agree(files: list[Made], resolution: int) -> None:
    """Exactly on the files' own grid; elsewhere cells of another origin may differ within GDAL's eighth of a pixel."""
    made = [files[1], files[2]]
    here = grid(CRS, resolution)
    beside = here.translate_pix(13, 9)
    resampling = {"dn_silent": "average", "power_flat": "bilinear"}
    mine, other = (
        backend_odc.read(request_of(made, box, CELL, resampling)).isel(time=0).compute(scheduler="synchronous")
        for box in (here, beside)
    )
    for name in resampling:
        a, b = mine[name].to_numpy()[9:, 13:].astype(float), other[name].to_numpy()[:-9, :-13].astype(float)
        if resolution != 14 or name == "dn_silent":
            np.testing.assert_array_equal(a, b)
        both = (a > 0) & (b > 0)
        assert np.mean((a > 0) == (b > 0)) > 0.99
        # The field changes by up to about 600 from pixel to pixel.
        assert np.abs(a - b)[both].max() < 120
