"""The plain store in a bucket: what holds on disk holds there, and keys are left nowhere."""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import traceback
import uuid
import warnings
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rioxarray  # noqa: F401 - registers .rio
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from services import SeaweedFS

from glaciercube.campaign import make_plan, run
from glaciercube.catalog import find
from glaciercube.errors import GridMismatchError, StoreError
from glaciercube.models import load_model
from glaciercube.simulate.world import World
from glaciercube.store import (
    Missing,
    StoreOptions,
    Written,
    ZarrStore,
    missing_scenes,
    open_reader,
    open_store,
    open_writer,
)
from glaciercube.store.objects import Location, Objects, _ObjectStore

GRID = GeoBox((100, 70), Affine(20, 0, 500000, 0, -20, 6000000), "EPSG:32645")
TIMES = np.array(["2021-07-01T10:00:00", "2020-07-01T10:00:00"], "datetime64[ms]")
LABELS = ("2021-07-01T10:00:00", "2020-07-01T10:00:00")
BLOCKS = [(0, 0), (0, 1), (1, 0), (1, 1)]


@pytest.fixture(params=["memory", "s3"])
def options(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> StoreOptions:
    if request.param == "memory":
        return StoreOptions(f"memory://{uuid.uuid4()}", shard=64, chunk=32)
    server = request.getfixturevalue("s3")
    for name, value in server.environ.items():
        monkeypatch.setenv(name, value)
    # Found by what GDAL reads too, without being said again.
    return StoreOptions(f"{server.url}/{uuid.uuid4()}/a.zarr", shard=64, chunk=32)


def make(options: StoreOptions, times: Any = TIMES, grid: GeoBox = GRID, **more: Any) -> ZarrStore:
    extra = xr.Dataset({"sentinel1_age": ("time", np.arange(len(times), dtype="float32"))})
    return ZarrStore.create_or_open(options, grid, times, extra, {"region": "x"}, **more)


def pixels(block: tuple[int, int], value: float, rows: int = 2) -> tuple[Any, Any]:
    shape = (rows, 64 if block[0] == 0 else 36, 64 if block[1] == 0 else 6)
    return np.full(shape, value, "float32"), np.ones(shape, "uint8")


def objects_of(options: StoreOptions) -> Objects:
    return Location.here(options.path, options.endpoint).objects()


def test_anyone_can_open_it(options: StoreOptions) -> None:
    with make(options) as store:
        for i, block in enumerate(BLOCKS):
            store.write(TIMES, block, *pixels(block, i / 4), ["k", "k"])
        store.describe({"model": "band-ratio", "scenes": {}}, "test")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", category=PendingDeprecationWarning)
        # Not through our opener: what zarr makes of the bucket is all that is needed.
        plain = xr.open_zarr(objects_of(options).zarr(read_only=True))
        assert plain.rio.crs.to_epsg() == 32645
        assert plain["provenance"].attrs["model"] == "band-ratio"
        np.testing.assert_allclose(plain["glacier_probability"][:, 99, 69], 0.75, atol=0.002)
        xr.open_datatree(objects_of(options).zarr(read_only=True), engine="zarr")
    assert list(open_store(options.path)["time"].dt.year.to_numpy()) == [2020, 2021]


def test_the_ledger_notices_what_changed(options: StoreOptions) -> None:
    store = make(options)
    store.write(TIMES, (0, 0), *pixels((0, 0), 0.5), ["k", "k"])
    objects = objects_of(options)
    mark = next(mark for mark in store.ledger.entries() if mark.row == LABELS[0])
    assert all(piece.etag for piece in mark.pieces)
    key = next(iter(mark.files))
    whole = objects.get(key)
    # Other bytes of the same length have another etag: without reading everything it is noticed.
    objects.put(key, whole[:-1] + bytes([whole[-1] ^ 1]))
    assert set(store.done()) == {(LABELS[1], (0, 0), "k")}
    # A copy may have another etag too, and is read before it is condemned.
    objects.put(key, whole)
    assert len(store.done()) == len(store.done("sha256")) == 2
    objects.delete(key)
    assert len(store.done()) == 1
    store.close()


def test_two_campaigns_cannot_write_at_once(options: StoreOptions) -> None:
    first = make(options)
    with pytest.raises(StoreError, match=r"is being written by .*this process"):
        make(options)
    handle = first.handle()
    late = handle.write(TIMES, (0, 0), *pixels((0, 0), 0.1), ["first", "first"])
    second = make(options, takeover=True)
    second.write(TIMES, (0, 0), *pixels((0, 0), 0.9), ["second", "second"])
    for attempt in (
        lambda: first.commit([late]),
        lambda: first.prepare([(LABELS[0], (0, 0))]),
        lambda: first.describe({"scenes": {}}, "x"),
        lambda: handle.write(TIMES, (0, 0), *pixels((0, 0), 0.1), ["first", "first"]),
    ):
        with pytest.raises(StoreError, match="was taken over by"):
            attempt()
    assert {key for _, _, key in second.done("sha256")} == {"second"}
    second.close()


def test_a_mark_that_comes_too_late_does_not_count(options: StoreOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lease was lost between its check and the append: segments are numbered, and of each number there is one."""
    first = make(options)
    late = first.handle().write(TIMES, (0, 0), *pixels((0, 0), 0.1), ["first", "first"])
    first.prepare([])
    first.ledger.append([], [(LABELS[0], 0, (1, 1))])
    second = make(options, takeover=True)
    second.write(TIMES, (0, 0), *pixels((0, 0), 0.9), ["second", "second"])
    checks = iter([None])
    check = type(first._writing).check

    def once(self: Any) -> None:
        if next(checks, "done") == "done":
            check(self)

    with monkeypatch.context() as patch:
        patch.setattr(type(first._writing), "check", once)
        with pytest.raises(StoreError, match="was taken over by"):
            first.commit([late])
    assert {key for _, _, key in second.done("sha256")} == {"second"}
    second.close()


def test_an_upload_that_ends_midway_leaves_no_store(options: StoreOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    put, calls = _ObjectStore.put, iter(range(1000))

    def ends(self: Any, key: str, data: bytes) -> str:
        if next(calls) == 6:
            raise KeyboardInterrupt
        return put(self, key, data)

    with monkeypatch.context() as patch:
        patch.setattr(_ObjectStore, "put", ends)
        with pytest.raises(KeyboardInterrupt):
            make(options)
    assert open_reader(options, GRID) is None
    with pytest.raises(StoreError, match="cannot be opened"):
        open_store(options.path)
    with make(options) as store:
        store.write(TIMES, (0, 0), *pixels((0, 0), 0.5), ["k", "k"])
        assert len(store.done()) == 2
    with pytest.raises(GridMismatchError):
        make(options, grid=GRID.pad(1))


def test_what_is_not_a_store_is_left_alone(options: StoreOptions) -> None:
    objects = objects_of(options)
    objects.put("mine.txt", b"keep")
    with pytest.raises(StoreError, match="exists and is not a probability store"):
        make(options)
    assert [entry.key for entry in objects.list()] == ["mine.txt"]


def test_rows_are_added_and_missing_scenes_recorded(options: StoreOptions) -> None:
    make(options).close()
    times = np.array(["2019-07-01T10:00:00", *TIMES], "datetime64[ms]")
    with make(options, times) as store:
        gone = Missing("S2_1", "swir16", "permanent", "not there")
        store.write(times[:1], (1, 1), *pixels((1, 1), 0.5, 1), ["new"], [[gone]])
        assert set(store.done()) == {("2019-07-01T10:00:00", (1, 1), "new")}
    assert list(open_store(options.path)["sentinel1_age"].to_numpy()) == [0, 2, 1]
    assert list(missing_scenes(options.path)["scene"]) == ["S2_1"]


def _work(handle: bytes, block: tuple[int, int], value: float) -> Written:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    return pickle.loads(handle).write(TIMES, block, *pixels(block, value), ["k", "k"])  # type: ignore[no-any-return] # noqa: S301


@pytest.mark.parametrize("where", ["disk", "s3"])
def test_other_processes_write_and_the_driver_commits(
    where: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They have no credentials of their own."""
    path = str(tmp_path / "a.zarr")
    if where == "s3":
        server = request.getfixturevalue("s3")
        for name, value in server.environ.items():
            monkeypatch.setenv(name, value)
        path = f"{server.url}/{uuid.uuid4()}/a.zarr"
    with make(StoreOptions(path, shard=64, chunk=32)) as store:
        handle = pickle.dumps(store.handle())
        with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
            tasks = [pool.submit(_work, handle, block, i / 4) for i, block in enumerate(BLOCKS)]
            written = [task.result() for task in tasks]
        assert len(store.done()) == 0
        store.commit(written)
        assert len(store.done("sha256")) == 8
        assert len(list(store._objects.list("provenance/ledger"))) == 1
    found = open_store(path)["glacier_probability"]
    np.testing.assert_allclose(found[:, 99, 69], 0.75, atol=0.002)
    np.testing.assert_allclose(found[:, 99, 0], 0.5, atol=0.002)


@pytest.mark.parametrize("kind", ["zarr", "icechunk"])
def test_keys_are_left_nowhere(
    s3: SeaweedFS, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, kind: Any
) -> None:
    caplog.set_level(logging.DEBUG)
    for name, value in s3.environ.items():
        monkeypatch.setenv(name, value)
    options = StoreOptions(f"{s3.url}/{uuid.uuid4()}/a", shard=64, chunk=32, kind=kind)
    times = xr.Dataset(coords={"time": TIMES})
    with open_writer(options, GRID, TIMES, times, {}) as store:
        store.write(TIMES, (0, 0), *pixels((0, 0), 0.5), ["k", "k"])
        store.describe({"scenes": {}, "config": {"store": repr(options)}}, "test")
        told = repr(store.handle()) + repr(vars(store))
    for entry in objects_of(options).list():
        content = objects_of(options).get(entry.key)
        assert s3.key.encode() not in content, entry.key
        assert s3.secret.encode() not in content, entry.key
    wrong = "wr0ng-" + s3.secret
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", wrong)
    for attempt in (
        lambda: open_writer(options, GRID, TIMES, times, {}),
        lambda: open_store(options.path),
        lambda: missing_scenes(options.path),
    ):
        with pytest.raises(StoreError, match=r"the server refuses|who you are") as failure:
            attempt()
        told += "".join(traceback.format_exception(failure.value))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "unknown-" + s3.key)
    with pytest.raises(StoreError) as failure:
        open_writer(options, GRID, TIMES, times, {})
    told += "".join(traceback.format_exception(failure.value))
    told += caplog.text
    for secret in (s3.key, s3.secret, wrong):
        assert secret not in told


def test_a_server_that_is_gone_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    from glaciercube.store import objects

    monkeypatch.setattr(objects, "RETRIES", {"max_retries": 0})
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    options = StoreOptions("s3://cubes/a.zarr", endpoint="http://127.0.0.1:9")
    with pytest.raises(StoreError, match=r"cannot use the store s3://cubes/a.zarr .*server is up"):
        make(options)


def test_a_campaign_gives_the_same_pixels_wherever_it_writes(
    s3: SeaweedFS, world: World, catalog: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.environ.items():
        monkeypatch.setenv(name, value)
    scenes = find(catalog, world.region, "2021", ["sentinel-2"])
    bucket = f"{s3.url}/{uuid.uuid4()}"
    paths = [str(tmp_path / "a.zarr"), f"{bucket}/a.zarr", str(tmp_path / "a.icechunk"), f"{bucket}/a.icechunk"]
    found = []
    for path in paths:
        plan = make_plan(world.region, scenes, load_model("ndsi"), StoreOptions(path, shard=48, chunk=48))
        assert (run(plan).computed, run(plan).computed) == (8, 0)
        found.append(open_store(path).load())
    for other in found[1:]:
        xr.testing.assert_equal(other["glacier_probability"], found[0]["glacier_probability"])
        xr.testing.assert_equal(other["quality"], found[0]["quality"])
