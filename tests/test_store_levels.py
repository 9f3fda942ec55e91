"""Coarser levels: means of what is valid below, built when a date is whole, gone where a shard is written anew."""

from __future__ import annotations

import itertools
import json
import uuid
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rioxarray  # noqa: F401 - registers .rio
import xarray as xr
import zarr
from affine import Affine
from conftest import FULL
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

from glaciercube.campaign import RunOptions, make_plan, run
from glaciercube.catalog import find
from glaciercube.errors import StoreError
from glaciercube.models import load_model
from glaciercube.simulate.world import World
from glaciercube.store import Store, StoreOptions, open_store, open_writer
from glaciercube.store.icerepo import readonly_store
from glaciercube.store.levels import Levels, level_count, level_geobox
from glaciercube.store.objects import Location

GRID = GeoBox((101, 67), Affine(20, 0, 500000, 0, -20, 6000000), "EPSG:32645")
TIMES = np.array(["2021-07-01T10:00:00", "2020-07-01T10:00:00"], "datetime64[ms]")
BLOCKS = [(y, x) for y in range(4) for x in range(3)]


@pytest.fixture(params=["disk", "memory", "icechunk"])
def options(request: pytest.FixtureRequest, tmp_path: Path) -> StoreOptions:
    if request.param == "icechunk":
        pytest.importorskip("icechunk")
    path = {"disk": str(tmp_path / "a.zarr"), "memory": f"memory://{uuid.uuid4()}"}.get(request.param)
    return StoreOptions(path or str(tmp_path / "a.icechunk"), shard=32, chunk=16)


def make(options: StoreOptions, times: Any = TIMES) -> Store:
    return open_writer(options, GRID, times, xr.Dataset(coords={"time": times}), {})


def scene(seed: int) -> tuple[Any, Any]:
    """Packed values that survive packing, some missing, and flags."""
    random = np.random.default_rng(seed)
    probability = (random.integers(0, 251, GRID.shape) * 0.004).astype("float32")
    probability[random.random(GRID.shape) < 0.3] = np.nan
    probability[32:64, :32] = np.nan
    return probability, random.integers(0, 4, GRID.shape, "uint8")


def fill(store: Store, time: Any, seed: int, blocks: Any = BLOCKS, key: str = "k") -> None:
    probability, quality = scene(seed)
    for block in blocks:
        y, x = store.options.slices(block, (101, 67))
        store.write(np.array([time]), block, probability[None, y, x], quality[None, y, x], [key])


def level(options: StoreOptions, number: int) -> xr.Dataset:
    location = Location.here(options.path)
    source = readonly_store(location) if "icechunk" in options.path else location.objects().zarr(read_only=True)
    found: xr.Dataset = xr.open_zarr(source, group=f"levels/{number}", consolidated=False, decode_coords="all")
    return found


def expected(seed: int, scale: int) -> tuple[Any, Any]:
    """The definition, slowly: mean of the valid packed values below, and flags of any."""
    probability, quality = scene(seed)
    shape = [-(-size // scale) for size in GRID.shape]
    mean, flags = np.full(shape, np.nan), np.zeros(shape, "uint8")
    for y, x in np.ndindex(*shape):
        here = np.s_[y * scale : (y + 1) * scale, x * scale : (x + 1) * scale]
        below = probability[here]
        if np.isfinite(below).any():
            mean[y, x] = np.rint(np.rint(below[np.isfinite(below)] / 0.004).mean()) * 0.004
        flags[y, x] = np.bitwise_or.reduce(quality[here], axis=None)
    return mean, flags


def test_levels_are_means_of_what_is_valid(options: StoreOptions) -> None:
    with make(options) as store:
        fill(store, TIMES[0], 1)
        fill(store, TIMES[1], 2, BLOCKS[:-1])
        # Only the date that is whole.
        assert store.build_levels() == ["2021-07-01T10:00:00"]
        assert store.build_levels() == []
        assert level_count(options, (101, 67)) == 3
        for number in (1, 2, 3):
            found = level(options, number)
            mean, flags = expected(1, 2**number)
            np.testing.assert_allclose(found["glacier_probability"][0], mean, atol=1e-9)
            np.testing.assert_array_equal(found["quality"][0], flags)
            assert np.isnan(found["glacier_probability"][1]).all()
            assert found.rio.crs.to_epsg() == 32645
            assert found["glacier_probability"].rio.transform() == GRID.affine @ Affine.scale(2**number)
            np.testing.assert_array_equal(found["time"], TIMES.astype("datetime64[s]"))
        fill(store, TIMES[1], 2, BLOCKS[-1:])
        assert store.build_levels() == ["2020-07-01T10:00:00"]
        np.testing.assert_allclose(level(options, 3)["glacier_probability"][1], expected(2, 8)[0], atol=1e-9)


def test_the_base_is_opened_as_before(options: StoreOptions) -> None:
    with make(options) as store:
        fill(store, TIMES[0], 1)
        store.build_levels()
        store.describe({"scenes": {}}, "test")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", category=PendingDeprecationWarning)
        found = open_store(options.path)
        assert found.sizes == {"time": 2, "y": 101, "x": 67}
        if "icechunk" not in options.path:
            store_ = Location.here(options.path).objects().zarr(read_only=True)
            assert xr.open_zarr(store_).sizes == found.sizes
            assert xr.open_zarr(store_, group="levels/1").sizes == {"time": 2, "y": 51, "x": 34}
            assert {"/", "/levels/1", "/levels/3"} <= set(xr.open_groups(store_, engine="zarr"))
    layout = found.attrs["multiscales"]["layout"]
    assert [entry["asset"] for entry in layout] == [
        "glacier_probability",
        *(f"levels/{number}/glacier_probability" for number in (1, 2, 3)),
    ]
    assert all(entry["derived_from"] == before["asset"] for before, entry in itertools.pairwise(layout))
    assert [entry["transform"]["scale"] for entry in layout] == [[1, 1], [2, 2], [2, 2], [2, 2]]
    assert layout[1]["spatial:shape"] == [51, 34]
    assert layout[1]["spatial:transform"] == [40, 0, 500000, 0, -40, 6000000]
    assert "multiscales" in {convention["name"] for convention in found.attrs["zarr_conventions"]}
    json.dumps(found.attrs["multiscales"])


def test_a_shard_that_is_written_anew_is_gone_from_the_levels(options: StoreOptions) -> None:
    with make(options) as store:
        fill(store, TIMES[0], 1)
        fill(store, TIMES[1], 2)
        assert len(store.build_levels()) == 2
        fill(store, TIMES[0], 3, [(0, 1)], key="new")
        coarse = level(options, 2)["glacier_probability"]
        assert np.isnan(coarse[0, :8, 8:16]).all()
        # What lies beside it is as it was, or gone with it.
        mean = expected(1, 4)[0]
        assert (np.isnan(coarse[0]) | np.isclose(coarse[0], mean, atol=1e-9, equal_nan=True)).all()
        np.testing.assert_allclose(coarse[1], expected(2, 4)[0], atol=1e-9)
        # The date is whole again, and it alone is built.
        assert store.build_levels() == ["2021-07-01T10:00:00"]
        fill(store, TIMES[0], 3, [block for block in BLOCKS if block != (0, 1)], key="new")
        assert store.build_levels() == ["2021-07-01T10:00:00"]
        np.testing.assert_allclose(level(options, 2)["glacier_probability"][0], expected(3, 4)[0], atol=1e-9)


def test_a_date_written_anew_costs_little_for_its_levels(
    options: StoreOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No level is read or written: they are deleted, once for all shards."""
    with make(options) as store:
        fill(store, TIMES[0], 1)
        store.build_levels()
        set_in: list[str] = []
        deleted: list[str] = []
        write = zarr.Array.__setitem__
        invalidate = Levels.invalidate

        def counted(self: Any, key: Any, value: Any) -> None:
            set_in.append(self.path)
            write(self, key, value)

        def watched(self: Levels, shards: Any, delete: Any) -> None:
            def told(keys: Any) -> None:
                some = list(keys)
                deleted.extend(some)
                delete(some)

            invalidate(self, shards, told)

        monkeypatch.setattr(zarr.Array, "__setitem__", counted)
        monkeypatch.setattr(Levels, "invalidate", watched)
        handle, (probability, quality) = store.handle(), scene(3)
        spans = {block: store.options.slices(block, (101, 67)) for block in BLOCKS}
        for block, (y, x) in spans.items():
            store.prepare([("2021-07-01T10:00:00", block)])
            store.commit([handle.write(TIMES[:1], block, probability[None, y, x], quality[None, y, x], ["new"])])
        assert not [path for path in set_in if path.startswith("levels/") and not path.endswith("made_from")]
        # 4, 1 and 1 shards of three levels, of two variables.
        assert len(set(deleted)) == len(deleted) == 12
        assert np.isnan(level(options, 1)["glacier_probability"][0]).all()
        assert np.isnan(level(options, 3)["glacier_probability"][0]).all()
        assert store.build_levels() == ["2021-07-01T10:00:00"]
        np.testing.assert_allclose(level(options, 3)["glacier_probability"][0], expected(3, 8)[0], atol=1e-9)


def test_new_dates_build_only_their_own(options: StoreOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    with make(options) as store:
        fill(store, TIMES[0], 1)
        store.build_levels()
    times = np.array(["2022-07-01T10:00:00", *TIMES], "datetime64[ms]")
    built: list[int] = []
    build = Levels.build

    def counted(self: Levels, rows: Mapping[int, bytes]) -> Iterator[int]:
        built.extend(rows)
        return build(self, rows)

    monkeypatch.setattr(Levels, "build", counted)
    with make(options, times) as store:
        fill(store, times[0], 5)
        assert store.build_levels() == ["2022-07-01T10:00:00"]
    assert built == [2]
    found = level(options, 1)
    np.testing.assert_array_equal(found["time"].dt.year, [2021, 2020, 2022])
    np.testing.assert_allclose(found["glacier_probability"][0], expected(1, 2)[0], atol=1e-9)
    np.testing.assert_allclose(found["glacier_probability"][2], expected(5, 2)[0], atol=1e-9)


def test_a_kill_while_levels_are_built_is_mended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At any write: the base is opened as before, and the next run builds what is missing."""
    write = zarr.Array.__setitem__
    for at in range(1, 80, 1 if FULL else 6):
        options = StoreOptions(str(tmp_path / f"{at}.zarr"), shard=32, chunk=16)
        store = make(options)
        fill(store, TIMES[0], 1)
        calls = 0

        def killed(self: Any, key: Any, value: Any, at: int = at) -> None:
            nonlocal calls
            calls += 1
            if calls == at:
                raise KeyboardInterrupt
            write(self, key, value)

        with monkeypatch.context() as patch:
            patch.setattr(zarr.Array, "__setitem__", killed)
            try:
                store.build_levels()
                finished = True
            except KeyboardInterrupt:
                finished = False
        assert np.isfinite(open_store(options.path)["glacier_probability"]).any()
        store.close()
        with make(options) as again:
            again.build_levels()
        for number in (1, 3):
            mean = expected(1, 2**number)[0]
            np.testing.assert_allclose(level(options, number)["glacier_probability"][0], mean, atol=1e-9)
        if finished:
            return
    pytest.fail("it was never finished")


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 64), st.integers(1, 64))
@settings(deadline=None)
def test_levels_end_when_one_fits_into_a_chunk(height: int, width: int, shard: int, chunk: int) -> None:
    options = StoreOptions("a", shard=shard, chunk=chunk)
    count = level_count(options, (height, width))
    geobox = GeoBox((height, width), GRID.affine, GRID.crs)
    assert count == 0 or max(level_geobox(geobox, count - 1).shape) > chunk
    assert max(level_geobox(geobox, count).shape) <= chunk or options.block % 2


@pytest.mark.parametrize("kind", ["zarr", *(["icechunk"] if FULL else [])])
def test_a_campaign_builds_them_when_asked(
    kind: Any, tmp_path: Path, world: World, catalog: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of dates that are complete and have none, also when there is nothing else to do; of new dates alone."""
    rows: list[list[int]] = []
    build = Levels.build

    def counted(self: Levels, wanted: Mapping[int, bytes]) -> Iterator[int]:
        rows.append(sorted(wanted))
        return build(self, wanted)

    monkeypatch.setattr(Levels, "build", counted)
    options = StoreOptions(str(tmp_path / "a"), shard=32, chunk=32, kind=kind)

    def go(time: str, **more: Any) -> None:
        scenes = find(catalog, world.region, time, ["sentinel-2"])
        run(make_plan(world.region, scenes, load_model("ndsi"), options), RunOptions(events="", **more))

    go("2021")
    go("2021", levels=True)
    go("2021", levels=True)
    go("2021/2022", levels=True)
    assert rows == [[0, 1], [2, 3]]
    base = open_store(options.path)["glacier_probability"]
    with pytest.raises(StoreError, match="has no level 3"):
        open_store(options.path, level=3)
    for count in (1, 2):
        coarse = open_store(options.path, level=count)
        means = base.coarsen(x=2**count, y=2**count).mean()
        np.testing.assert_allclose(coarse["glacier_probability"], means, atol=0.0021)
