"""Icechunk: data and marks in one commit, two who touch one shard are kept apart, and every run can be opened again."""

from __future__ import annotations

import pickle
import time
import uuid
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rioxarray  # noqa: F401 - registers .rio
import xarray as xr
import zarr
from affine import Affine
from odc.geo.geobox import GeoBox

from glaciercube.errors import GridMismatchError, StoreError
from glaciercube.store import Missing, StoreOptions, missing_scenes, open_reader, open_store, open_writer, runs, tidy
from glaciercube.store.icestore import IcechunkStore
from glaciercube.store.objects import Location

pytest.importorskip("icechunk", reason="pip install 'glaciercube[icechunk]'")

GRID = GeoBox((100, 70), Affine(20, 0, 500000, 0, -20, 6000000), "EPSG:32645")
TIMES = np.array(["2021-07-01T10:00:00", "2020-07-01T10:00:00"], "datetime64[ms]")
LABELS = ("2021-07-01T10:00:00", "2020-07-01T10:00:00")


@pytest.fixture(params=["disk", "s3"])
def options(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StoreOptions:
    if request.param == "disk":
        return StoreOptions(str(tmp_path / "a.icechunk"), shard=64, chunk=32)
    server = request.getfixturevalue("s3")
    for name, value in server.environ.items():
        monkeypatch.setenv(name, value)
    return StoreOptions(f"{server.url}/{uuid.uuid4()}/a", shard=64, chunk=32, kind="icechunk", endpoint=server.endpoint)


def make(options: StoreOptions, times: Any = TIMES, **more: Any) -> IcechunkStore:
    extra = xr.Dataset({"sentinel1_age": ("time", np.arange(len(times), dtype="float32"))})
    store = open_writer(options, GRID, times, extra, {"region": "x"}, **more)
    assert isinstance(store, IcechunkStore)
    return store


def pixels(block: tuple[int, int], value: float, rows: int = 2) -> tuple[Any, Any]:
    shape = (rows, 64 if block[0] == 0 else 36, 64 if block[1] == 0 else 6)
    return np.full(shape, value, "float32"), np.ones(shape, "uint8")


def test_anyone_can_open_it(options: StoreOptions) -> None:
    with make(options) as store:
        store.write(TIMES, (0, 0), *pixels((0, 0), 0.5), ["a", "b"])
        store.describe({"model": "band-ratio", "scenes": {}}, "test")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", category=PendingDeprecationWarning)
        opened = open_store(options.path, endpoint=options.endpoint)
        assert list(opened["time"].dt.year.to_numpy()) == [2020, 2021]
        np.testing.assert_allclose(opened["glacier_probability"][:, :64, :64], 0.5, atol=0.002)
        assert np.isnan(opened["glacier_probability"][:, 64:]).all()
        assert opened.rio.crs.to_epsg() == 32645
        assert opened["provenance"].attrs["model"] == "band-ratio"
    assert set(store.done()) == {(LABELS[0], (0, 0), "a"), (LABELS[1], (0, 0), "b")}
    assert len(store.done("sha256")) == 2


def test_marks_are_in_the_commit_of_their_shards(options: StoreOptions) -> None:
    """At no snapshot of the history is a shard there without its mark, or a mark without its shard."""
    with make(options) as store:
        for block in ((0, 0), (1, 0), (0, 1)):
            store.write(TIMES, block, *pixels(block, 0.5), ["k", "k"])
    repository = store._repository
    seen = set()
    for snapshot in repository.ancestry(branch="main"):
        session = repository.readonly_session(snapshot_id=snapshot.id)
        try:
            cube = xr.open_zarr(session.store, consolidated=False)
        except FileNotFoundError:
            continue
        keys = np.asarray(zarr.open_array(session.store, path="ledger/key", mode="r")[:]).any(axis=-1)
        there = np.isfinite(cube["glacier_probability"].to_numpy())[:, ::64, ::64]
        np.testing.assert_array_equal(there, keys)
        seen.add(int(keys.sum()))
    assert seen == {0, 2, 4, 6}


def test_workers_write_and_the_driver_commits(options: StoreOptions) -> None:
    with make(options) as store:
        handle = pickle.dumps(store.handle())
        written = []
        for i, block in enumerate([(0, 0), (1, 0), (0, 1), (1, 1)]):
            there = pickle.loads(handle)  # noqa: S301 - our own
            one = there.write(TIMES, block, *pixels(block, i / 4), ["k", "k"])
            written.append(pickle.loads(pickle.dumps(one)))  # noqa: S301
        assert len(store.done()) == 0
        store.commit(written[:2])
        assert len(store.done()) == 4
        # A handle from before a commit of our own is as good.
        store.commit(written[2:])
        assert len(store.done()) == 8
    found = open_store(options.path, endpoint=options.endpoint)["glacier_probability"]
    np.testing.assert_allclose(found[:, 99, 69], 0.75, atol=0.002)
    np.testing.assert_allclose(found[:, 0, 69], 0.5, atol=0.002)
    with pytest.raises(StoreError, match=r"was closed"):
        store.commit(written[:1])


def test_a_shard_given_twice_is_refused(options: StoreOptions) -> None:
    with make(options) as store:
        handle = store.handle()
        twice = [handle.write(TIMES, (0, 0), *pixels((0, 0), p), ["k", "k"]) for p in (0.1, 0.9)]
        with pytest.raises(StoreError, match="written twice"):
            store.commit(twice)
        with pytest.raises(StoreError, match=r"takes \(2, 36, 6\) pixels"):
            handle.write(TIMES, (1, 1), *pixels((0, 0), 0.5), ["k", "k"])


def test_a_second_writer_is_refused_and_two_sessions_too(
    options: StoreOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lease comes first. Where it fails to keep two apart, Icechunk does."""
    first = make(options)
    with pytest.raises(StoreError, match=r"is being written by .*this process"):
        make(options)
    second = make(options, takeover=True)
    with pytest.raises(StoreError, match="was taken over"):
        first.write(TIMES, (0, 0), *pixels((0, 0), 0.5), ["k", "k"])
    from glaciercube.store.lease import Lease, Ticket

    monkeypatch.setattr(Ticket, "check", lambda _: None)
    monkeypatch.setattr(Lease, "check", lambda _: None)
    stale = first.handle()
    second.write(TIMES, (0, 0), *pixels((0, 0), 0.9), ["second", "second"])
    with pytest.raises(StoreError, match=r"another run has written the same shards .*its are kept"):
        first.write(TIMES, (0, 0), *pixels((0, 0), 0.1), ["first", "first"])
    assert {key for _, _, key in first.done()} == {"second"}
    # A fork from before knows nothing of that, and would win silently.
    with pytest.raises(StoreError, match="another run has written"):
        first.commit([stale.write(TIMES, (0, 0), *pixels((0, 0), 0.1), ["first", "first"])])
    found = open_store(options.path, endpoint=options.endpoint)
    np.testing.assert_allclose(found["glacier_probability"][:, 0, 0], 0.9, atol=0.002)
    second.close()


def test_others_who_touch_other_dates_are_let_be(options: StoreOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    from glaciercube.store.lease import Lease, Ticket

    first, second = make(options), make(options, takeover=True)
    monkeypatch.setattr(Ticket, "check", lambda _: None)
    monkeypatch.setattr(Lease, "check", lambda _: None)
    second.write(TIMES[:1], (0, 0), *pixels((0, 0), 0.9, 1), ["second"])
    first.write(TIMES[1:], (0, 0), *pixels((0, 0), 0.1, 1), ["first"])
    assert set(first.done()) == {(LABELS[0], (0, 0), "second"), (LABELS[1], (0, 0), "first")}
    second.close()


def test_every_run_can_be_opened_again(options: StoreOptions) -> None:
    def value(**which: Any) -> float:
        cube = open_store(options.path, endpoint=options.endpoint, **which)
        return round(float(cube["glacier_probability"].sel(time="2021-07-01").squeeze()[0, 0]), 2)

    for run in (0.2, 0.4, 0.8):
        with make(options) as store:
            store.write(TIMES, (0, 0), *pixels((0, 0), run), ["k", "k"])
        time.sleep(1.1)  # runs are named by the second
    with make(options):
        pass  # nothing was done: no run
    kept = runs(options.path, endpoint=options.endpoint)
    assert len(kept) == 3
    assert list(kept) == sorted(kept)
    assert [value(as_of=name) for name in kept.index] == [0.2, 0.4, 0.8]
    assert value() == 0.8
    assert value(as_of=kept.iloc[1].isoformat()) == 0.4
    assert value(as_of=datetime.now(UTC)) == 0.8
    with pytest.raises(StoreError, match="cannot use the store"):
        open_store(options.path, endpoint=options.endpoint, as_of="no-such-run")


def test_rows_are_added_and_the_grid_is_held_to(options: StoreOptions) -> None:
    make(options).close()
    times = np.array(["2019-07-01T10:00:00", *TIMES], "datetime64[ms]")
    with make(options, times) as store:
        store.write(times[:1], (1, 1), *pixels((1, 1), 0.5, 1), ["new"])
        assert set(store.done()) == {("2019-07-01T10:00:00", (1, 1), "new")}
    found = open_store(options.path, endpoint=options.endpoint)
    assert list(found["time"].dt.year.to_numpy()) == [2019, 2020, 2021]
    assert list(found["sentinel1_age"].to_numpy()) == [0, 2, 1]
    with pytest.raises(GridMismatchError):
        open_writer(options, GRID.pad(1), TIMES, xr.Dataset(coords={"time": TIMES}), {})
    with pytest.raises(GridMismatchError):
        open_reader(options, GRID.zoom_out(2))


def test_missing_scenes_are_committed_with_the_shards(options: StoreOptions) -> None:
    gone = Missing("S2_1", "swir16", "permanent", "not there")
    with make(options) as store:
        store.write(TIMES, (0, 0), *pixels((0, 0), 0.5), ["k", "k"], [[gone], []])
        told = missing_scenes(options.path, endpoint=options.endpoint)
        assert list(told["scene"]) == ["S2_1"]
        assert set(store.done(lacking=False)) == {(LABELS[1], (0, 0), "k")}
        store.write(TIMES, (0, 0), *pixels((0, 0), 0.5), ["k", "k"])
    assert missing_scenes(options.path, endpoint=options.endpoint).empty


def test_what_is_not_a_repository_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "a.icechunk").mkdir()
    (tmp_path / "a.icechunk" / "mine.txt").write_text("keep")
    options = StoreOptions(str(tmp_path / "a.icechunk"), shard=64, chunk=32)
    with pytest.raises(StoreError, match="exists and is not an Icechunk repository"):
        make(options)
    assert [p.name for p in (tmp_path / "a.icechunk").iterdir()] == ["mine.txt"]
    assert open_reader(StoreOptions(str(tmp_path / "none.icechunk")), GRID) is None
    zarr_one = StoreOptions(str(tmp_path / "b"), shard=64, chunk=32)
    open_writer(zarr_one, GRID, TIMES, xr.Dataset(coords={"time": TIMES}), {}).close()
    with pytest.raises(StoreError, match="is of kind zarr, and icechunk is asked for"):
        make(StoreOptions(zarr_one.path, shard=64, chunk=32, kind="icechunk"))
    with pytest.raises(StoreError, match="keeps no history"):
        runs(zarr_one.path)
    with pytest.raises(StoreError, match="keeps no history"):
        open_store(zarr_one.path, as_of="2020-01-01")


def test_what_killed_workers_left_is_cleared_away(options: StoreOptions) -> None:
    """What they wrote and nobody committed; every run stays as it was."""
    for value in (0.25, 0.5):
        with make(options) as store:
            store.write(TIMES, (0, 0), *pixels((0, 0), value), ["k", "k"])
            store.handle().write(TIMES, (1, 0), *noise((1, 0)), ["lost", "lost"])
        time.sleep(1.1)  # runs are named by the second
    objects = Location.here(options.path, options.endpoint).objects()
    kept = list(runs(options.path, endpoint=options.endpoint).index)
    before = sum(entry.size for entry in objects.list("chunks"))
    with make(options), pytest.raises(StoreError, match="is being written by"):
        tidy(options.path, endpoint=options.endpoint)
    assert tidy(options.path, endpoint=options.endpoint).objects == 0  # younger than an hour
    gone = tidy(options.path, endpoint=options.endpoint, age=timedelta())
    assert gone.objects >= 8  # two dates, two arrays, two runs
    assert sum(entry.size for entry in objects.list("chunks")) <= before - gone.bytes // 2
    for name, value in zip(kept, (0.25, 0.5), strict=True):
        cube = open_store(options.path, endpoint=options.endpoint, as_of=name)["glacier_probability"]
        np.testing.assert_allclose(cube[:, :64, :64], value, atol=0.002)
        assert np.isnan(cube[:, 64:]).all()
    assert len(make(options).done("sha256")) == 2


def noise(block: tuple[int, int]) -> tuple[Any, Any]:
    """Pixels that do not fit into a manifest."""
    probability, quality = pixels(block, 0.0)
    draw = np.random.default_rng(0)
    return draw.random(probability.shape, "float32"), draw.integers(0, 255, quality.shape, "uint8")


def test_a_commit_whose_answer_was_lost_is_ours(options: StoreOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server did it and died before it said so; asked again, it says that somebody was faster."""
    import icechunk

    commit = icechunk.Session.commit

    def twice(self: Any, message: str, metadata: Any) -> str:
        branch = self.snapshot_id
        commit(self, message, metadata)
        raise icechunk.ConflictError(branch, "newer")

    with make(options) as store:
        with monkeypatch.context() as patch:
            patch.setattr(icechunk.Session, "commit", twice)
            store.write(TIMES, (0, 0), *pixels((0, 0), 0.5), ["k", "k"])
        store.write(TIMES, (1, 0), *pixels((1, 0), 0.5), ["k", "k"])
        assert len(store.done()) == 4
    assert len(runs(options.path, endpoint=options.endpoint)) == 1
