"""The store: packing, missing shards, ownership, and what anyone sees who opens it."""

from __future__ import annotations

import warnings
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rioxarray  # noqa: F401 - registers .rio
import xarray as xr
import zarr
from affine import Affine
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

from glaciercube.cli import main
from glaciercube.errors import GridMismatchError, StoreError
from glaciercube.store import Ledger, StoreOptions, Tidied, ZarrStore, open_store, tidy
from glaciercube.store.layout import pack
from glaciercube.store.shards import Shards

GRID = GeoBox((100, 70), Affine(20, 0, 500000, 0, -20, 6000000), "EPSG:32645")
TIMES = np.array(["2021-07-01T10:00:00", "2020-07-01T10:00:00"], "datetime64[ms]")


_open: dict[Path, ZarrStore] = {}


def make(path: Path, grid: GeoBox = GRID, times: Any = TIMES, shard: int = 64) -> ZarrStore:
    """A writer; the one before it has ended."""
    if path in _open:
        _open.pop(path).close()
    extra = xr.Dataset({"sentinel1_age": ("time", np.arange(len(times), dtype="float32"))})
    options = StoreOptions(str(path), shard=shard, chunk=32)
    _open[path] = ZarrStore.create_or_open(options, grid, times, extra, {"region": "x"})
    return _open[path]


def fill(store: ZarrStore, block: tuple[int, int], value: float, key: str = "k") -> None:
    y, x = store.options.slices(block, (100, 70))
    shape = (2, y.stop - y.start, x.stop - x.start)
    store.write(TIMES, block, np.full(shape, value, "float32"), np.ones(shape, "uint8"), [key, key])


@given(st.lists(st.floats(-0.5, 1.5, width=32) | st.just(float("nan")), min_size=1))
def test_packing_loses_at_most_half_a_step(values: list[float]) -> None:
    given_ = np.array(values, "float32")
    packed = pack(given_)
    decoded = np.where(packed == 255, np.nan, packed * 0.004)
    np.testing.assert_array_equal(np.isnan(decoded), np.isnan(given_))
    error = np.abs(decoded - np.clip(given_, 0, 1))
    assert not np.isfinite(error).any() or np.nanmax(error) <= 0.002 + 1e-7


def test_anyone_can_open_it(tmp_path: Path) -> None:
    store = make(tmp_path / "a.zarr")
    probability = np.random.default_rng(0).random((2, 64, 64), dtype="float32")
    probability[0, :3] = np.nan
    store.write(TIMES, (0, 0), probability, np.full(probability.shape, 3, "uint8"), ["a", "b"])
    store.describe({"model": "band-ratio", "versions": {"x": "1"}, "scenes": {}}, "test")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", category=PendingDeprecationWarning)
        plain = xr.open_zarr(tmp_path / "a.zarr")
        assert plain["glacier_probability"].dtype.kind == "f"
        np.testing.assert_array_equal(plain["time"], TIMES.astype("datetime64[s]"))
        np.testing.assert_allclose(plain["glacier_probability"][:, :64, :64], probability, atol=0.002001)
        assert plain.rio.crs.to_epsg() == 32645
        assert plain["glacier_probability"].rio.transform() == GRID.affine
        assert plain["quality"].dtype == "uint8"
        assert plain["quality"].attrs["flag_meanings"].split()[0] == "processed"
        assert plain.attrs["proj:code"] == "EPSG:32645"
        assert plain.attrs["spatial:transform"] == [20, 0, 500000, 0, -20, 6000000]
        assert plain["provenance"].attrs["model"] == "band-ratio"
        assert list(plain["sentinel1_age"].to_numpy()) == [0, 1]
        xr.open_datatree(tmp_path / "a.zarr", engine="zarr")
    # Ours are in the order of time.
    assert list(open_store(tmp_path / "a.zarr")["time"].dt.year.to_numpy()) == [2020, 2021]


def test_an_unwritten_shard_is_missing_and_not_zero(tmp_path: Path) -> None:
    store = make(tmp_path / "a.zarr")
    fill(store, (0, 0), 0.0)
    opened = xr.open_zarr(tmp_path / "a.zarr")
    written = opened["glacier_probability"][:, :64, :64]
    assert (written == 0).all()
    rest = opened["glacier_probability"].to_numpy().copy()
    rest[:, :64, :64] = np.nan
    assert np.isnan(rest).all()
    assert int(opened["quality"][:, 64:].max()) == 0
    raw = zarr.open_array(tmp_path / "a.zarr" / "glacier_probability", mode="r")
    assert raw.fill_value == 255
    assert raw[0, 99, 69] == 255


def test_one_file_per_shard_and_date(tmp_path: Path) -> None:
    store = make(tmp_path / "a.zarr")
    fill(store, (0, 0), 0.3)
    files = [p for p in (tmp_path / "a.zarr" / "glacier_probability" / "c").rglob("*") if p.is_file()]
    assert len(files) == 2


def test_only_whole_shards_are_written(tmp_path: Path) -> None:
    store = make(tmp_path / "a.zarr")
    with pytest.raises(StoreError, match=r"takes \(2, 36, 6\) pixels and was given \(2, 64, 64\).*lose each other"):
        store.write(TIMES, (1, 1), np.zeros((2, 64, 64), "float32"), np.zeros((2, 64, 64), "uint8"), ["k", "k"])


def test_the_ledger_vouches_only_for_what_is_there(tmp_path: Path) -> None:
    store = make(tmp_path / "a.zarr")
    fill(store, (0, 0), 0.5)
    labels = ("2021-07-01T10:00:00", "2020-07-01T10:00:00")
    assert set(store.done()) == {(label, (0, 0), "k") for label in labels}
    mark = next(mark for mark in store.ledger.entries() if mark.row == labels[0])
    shard = tmp_path / "a.zarr" / next(iter(mark.files))
    whole = shard.read_bytes()
    # Cut short, gone, or other bytes of the same length: what each check notices, and what it does not.
    shard.write_bytes(whole[:-9])
    assert set(store.done()) == {(labels[1], (0, 0), "k")}
    assert len(store.done("none")) == 2
    shard.unlink()
    assert set(store.done()) == {(labels[1], (0, 0), "k")}
    shard.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert len(store.done("size")) == 2
    assert set(store.done("sha256")) == {(labels[1], (0, 0), "k")}
    shard.write_bytes(whole)
    assert len(store.done("sha256")) == 2


def test_a_shard_where_all_is_fill_must_not_exist(tmp_path: Path) -> None:
    store = make(tmp_path / "a.zarr")
    fill(store, (0, 0), float("nan"))
    shard = tmp_path / "a.zarr" / "glacier_probability" / "c" / "0" / "0" / "0"
    assert not shard.exists()
    assert len(store.done("sha256")) == 2
    shard.parent.mkdir(parents=True)
    shard.write_bytes(b"not ours")
    assert len(store.done()) == 1


def test_a_shard_that_is_being_rewritten_is_not_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make(tmp_path / "a.zarr")
    fill(store, (0, 0), 0.5)
    fill(store, (0, 1), 0.5)
    append = Ledger.append

    def full(self: Ledger, marks: Any, withdrawn: Any = ()) -> None:
        if marks:
            raise OSError(28, "No space left on device")
        append(self, marks, withdrawn)

    monkeypatch.setattr(Ledger, "append", full)
    with pytest.raises(StoreError, match=r"No space left on device.*free space, then run again"):
        fill(store, (0, 0), 0.9)
    # The same key and a shard of the same length: only that it was withdrawn tells.
    assert {block for _, block, _ in store.done("none")} == {(0, 1)}
    monkeypatch.undo()
    fill(store, (0, 0), 0.9)
    assert len(store.done("sha256")) == 4


def test_what_counts_as_done_is_not_overwritten_unasked(tmp_path: Path) -> None:
    store = make(tmp_path / "a.zarr")
    fill(store, (0, 0), 0.5)
    shape = (2, 64, 64)
    written = store.handle().write(TIMES, (0, 0), np.zeros(shape, "float32"), np.ones(shape, "uint8"), ["k", "k"])
    with pytest.raises(StoreError, match="call prepare"):
        store.commit([written])


def test_a_damaged_segment_makes_older_ones_doubtful(tmp_path: Path) -> None:
    """It may have withdrawn them: they count only if their bytes are the ones that were recorded."""
    store = make(tmp_path / "a.zarr")
    fill(store, (0, 0), 0.5)
    fill(store, (0, 1), 0.5)
    first = tmp_path / "a.zarr" / "glacier_probability" / "c" / "0" / "0" / "0"
    old = first.read_bytes()
    first.write_bytes(old[:-1] + bytes([old[-1] ^ 1]))
    assert len(store.done()) == 4
    segments = sorted((tmp_path / "a.zarr" / "provenance" / "ledger").iterdir())
    segments[-1].write_bytes(b"PAR1 torn")
    assert set(store.done()) == {("2020-07-01T10:00:00", (0, 0), "k")}
    for segment in segments:
        segment.write_bytes(b"{")
    assert len(store.done()) == 0
    # It can still be appended to.
    fill(make(tmp_path / "a.zarr"), (0, 1), 0.5)
    assert len(_open[tmp_path / "a.zarr"].done()) == 2


def test_another_grid_is_refused_and_nothing_changes(tmp_path: Path) -> None:
    store = make(tmp_path / "a.zarr")
    fill(store, (0, 0), 0.5)
    store.close()
    before = {p: p.read_bytes() for p in (tmp_path / "a.zarr").rglob("*") if p.is_file()}
    for grid in (GRID.pad(1), GRID.zoom_out(2), GeoBox(GRID.shape, GRID.affine, "EPSG:32646")):
        with pytest.raises(GridMismatchError, match="made with another grid"):
            make(tmp_path / "a.zarr", grid)
    with pytest.raises(GridMismatchError, match="has shards of"):
        make(tmp_path / "a.zarr", shard=32)
    assert {p: p.read_bytes() for p in (tmp_path / "a.zarr").rglob("*") if p.is_file()} == before


def test_new_dates_touch_no_old_shard(tmp_path: Path) -> None:
    store = make(tmp_path / "a.zarr")
    fill(store, (0, 0), 0.5)
    shards = [
        p
        for name in ("glacier_probability", "quality")
        for p in (tmp_path / "a.zarr" / name / "c").rglob("*")
        if p.is_file()
    ]
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in shards}
    times = np.array(["2019-07-01T10:00:00", *TIMES], "datetime64[ms]")
    again = make(tmp_path / "a.zarr", times=times)
    again.write(times[:1], (0, 0), np.full((1, 64, 64), 0.3, "float32"), np.ones((1, 64, 64), "uint8"), ["n"])
    assert {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in shards} == before
    opened = open_store(tmp_path / "a.zarr")
    assert list(opened["time"].dt.year.to_numpy()) == [2019, 2020, 2021]
    assert float(opened["glacier_probability"][0, 0, 0]) == pytest.approx(0.3, abs=0.002)
    assert float(opened["glacier_probability"][1, 0, 0]) == pytest.approx(0.5, abs=0.002)
    # A row's own values are those of the last plan that had it.
    assert list(opened["sentinel1_age"].to_numpy()) == [0, 2, 1]


@pytest.mark.parametrize("at", range(1, 8))
def test_rows_that_were_only_begun_are_finished_by_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """A kill at any of the writes that add rows leaves a store that opens, and that the next run makes whole."""

    def extra(times: Any) -> xr.Dataset:
        ends = np.stack([times, times + np.timedelta64(31, "D")], axis=1)
        age = ("time", np.arange(len(times), dtype="float32"))
        return xr.Dataset({"sentinel1_age": age}, coords={"time_bnds": (("time", "bnds"), ends)})

    options = StoreOptions(str(tmp_path / "a.zarr"), shard=64, chunk=32)
    ZarrStore.create_or_open(options, GRID, TIMES, extra(TIMES), {}).close()
    times = np.array(["2019-07-01T10:00:00", *TIMES, "2022-07-01T10:00:00"], "datetime64[ms]")
    _open.pop(tmp_path / "a.zarr", None)
    calls = 0

    def killed(original: Any) -> Any:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == at:
                raise KeyboardInterrupt
            return original(*args, **kwargs)

        return wrapper

    with monkeypatch.context() as patch:
        patch.setattr(zarr.Array, "resize", killed(zarr.Array.resize))
        patch.setattr(zarr.Array, "__setitem__", killed(zarr.Array.__setitem__))
        patch.setattr(zarr, "consolidate_metadata", killed(zarr.consolidate_metadata))
        with pytest.raises(KeyboardInterrupt):
            ZarrStore.create_or_open(options, GRID, times, extra(times), {})
    left = xr.open_zarr(tmp_path / "a.zarr")
    assert set(TIMES.astype("datetime64[s]")) <= set(left["time"].to_numpy().astype("datetime64[s]"))
    ZarrStore.create_or_open(options, GRID, times, extra(times), {})
    whole = open_store(tmp_path / "a.zarr")
    np.testing.assert_array_equal(whole["time"], np.sort(times).astype("datetime64[s]"))
    np.testing.assert_array_equal(whole["time_bnds"][:, 0], whole["time"])
    assert sorted(whole["sentinel1_age"].to_numpy()) == [0, 1, 2, 3]


def test_ways_of_making_are_not_mixed(tmp_path: Path) -> None:
    store = make(tmp_path / "a.zarr")
    labels = ["2021-07-01T10:00:00", "2020-07-01T10:00:00"]
    made = {"model": "ndsi", "model_hash": "1", "scenes": {label: ["a"] for label in labels}, "reflectance_offsets": {}}
    store.describe(made, "glaciercube, ndsi")
    more = {**made, "scenes": {"2022-07-01T10:00:00": ["b"]}}
    store.describe(more, "glaciercube, ndsi")
    assert len(xr.open_zarr(tmp_path / "a.zarr")["provenance"].attrs["scenes"]) == 3
    other = {**more, "model": "band-ratio", "model_hash": "2"}
    with pytest.raises(StoreError, match=r"holds 2 dates, such as 2021-07-01T10:00:00, made with model ndsi"):
        store.describe(other, "glaciercube, band-ratio")
    # A run over all dates may change its ways: nothing of the old one stays.
    everything = {**other, "scenes": {label: ["a"] for label in (*labels, "2022-07-01T10:00:00")}}
    store.describe(everything, "glaciercube, band-ratio")
    opened = xr.open_zarr(tmp_path / "a.zarr")
    assert opened["provenance"].attrs["model"] == "band-ratio"
    assert opened.attrs["source"] == "glaciercube, band-ratio"


def test_what_is_not_a_store_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("keep")
    with pytest.raises(StoreError, match="exists and is not a probability store"):
        make(tmp_path / "notes")
    assert (tmp_path / "notes" / "mine.txt").read_text() == "keep"
    with pytest.raises(StoreError, match="cannot be opened as a Zarr store"):
        open_store(tmp_path / "notes")
    with pytest.raises(StoreError, match="cannot be opened") as caught:
        open_store(tmp_path / "none.zarr")
    none = tmp_path / "none.zarr"
    assert str(caught.value) == f"{none} cannot be opened as a Zarr store ({none} does not exist): check the path."
    xr.Dataset({"a": ("x", [1])}).to_zarr(tmp_path / "other.zarr", zarr_format=3, consolidated=False)
    with pytest.raises(StoreError):
        open_store(tmp_path / "other.zarr")


def test_a_store_that_was_only_begun_is_in_nobodys_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed before any of the files that make a store: what is there is no store, and the next run makes it whole."""
    from glaciercube.store.objects import _Folder

    put = _Folder.put
    for at in range(2, 40):
        path = tmp_path / f"{at}.zarr"
        calls = 0

        def killed(self: Any, key: str, data: bytes, at: int = at) -> str:
            nonlocal calls
            calls += 1
            if calls == at:
                raise KeyboardInterrupt
            return put(self, key, data)

        with monkeypatch.context() as patch:
            patch.setattr(_Folder, "put", killed)
            try:
                make(path)
            except KeyboardInterrupt:
                interrupted = True
            else:
                interrupted = False
        if interrupted and not (path / "zarr.json").exists():
            with pytest.raises(StoreError, match="cannot be opened"):
                open_store(path)
        fill(make(path), (0, 0), 0.5)
        assert len(open_store(path)["time"]) == 2
        if not interrupted:
            return
    pytest.fail("it was never finished")


def test_the_record_of_missing_scenes_follows_the_shards(tmp_path: Path) -> None:
    from glaciercube.store import Missing, missing_scenes

    path = tmp_path / "a.zarr"
    store = make(path)
    gone = Missing("S2_1", "swir16", "permanent", "not there")
    pixels = np.zeros((2, 64, 64), "float32"), np.ones((2, 64, 64), "uint8")
    store.write(TIMES, (0, 0), *pixels, ["k", "k"], [[gone], []])
    told = missing_scenes(path)
    assert list(told.iloc[0].astype(str)) == [
        "2021-07-01 10:00:00",
        "0",
        "0",
        "S2_1",
        "swir16",
        "permanent",
        "not there",
    ]
    assert len(store.done()) == 2
    assert set(store.done(lacking=False)) == {("2020-07-01T10:00:00", (0, 0), "k")}
    store.write(TIMES, (0, 0), *pixels, ["k", "k"])
    assert missing_scenes(path).empty
    with pytest.raises(StoreError, match="there is no store"):
        missing_scenes(tmp_path / "none.zarr")


def test_many_segments_are_joined_and_say_the_same(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    store = make(path)
    for turn in range(40):
        fill(store, (turn % 2, 0), 0.25, key=f"k{turn}")
    said = set(store.done("sha256"))
    assert said == {(label, (turn % 2, 0), f"k{turn}") for label in store._rows for turn in (38, 39)}
    folder = path / "provenance" / "ledger"
    assert len(list(folder.iterdir())) == 78
    again = make(path)
    assert len(list(folder.iterdir())) == 1
    assert set(again.done("sha256")) == said
    # Killed before the old ones were deleted: they say nothing new.
    fill(again, (0, 0), 0.5, key="new")
    again.ledger.join(many=0)
    assert {key for _, block, key in again.done() if block == (0, 0)} == {"new"}


def test_files_that_never_became_whole_are_cleared_away(tmp_path: Path) -> None:
    store = make(tmp_path / "a.zarr")
    fill(store, (0, 0), 0.5)
    torn = tmp_path / "a.zarr" / "quality" / "c" / "0" / "0" / "0.1f.partial"
    torn.write_bytes(b"half")
    with pytest.raises(StoreError, match="is being written by"):
        tidy(tmp_path / "a.zarr")
    store.close()
    assert tidy(tmp_path / "a.zarr").objects == 0  # younger than an hour
    assert tidy(tmp_path / "a.zarr", age=timedelta()) == Tidied(1, 4)
    assert not torn.exists()
    assert len(store.done("sha256")) == 2
    told = CliRunner().invoke(main, ["tidy", str(tmp_path / "a.zarr")])
    assert (told.exit_code, told.output) == (0, "0 objects cleared away, 0.0 MiB\n")
    told = CliRunner().invoke(main, ["tidy", str(tmp_path / "none.zarr")])
    assert told.exit_code == 1
    assert "there is no store at" in told.output
    with pytest.raises(StoreError, match="there is no store"):
        tidy(tmp_path / "none.zarr")
    assert not (tmp_path / "none.zarr").exists()


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)), max_size=40))
def test_shards_are_a_set(changes: list[tuple[bool, int, int, int]]) -> None:
    found, wanted = Shards(np.zeros(0, "int64"), beside=3), set[tuple[int, tuple[int, int]]]()
    for there, index, y, x in changes:
        place = (index, (y, x))
        assert found.among([place]) == [place] * (place in wanted)
        if there and place not in wanted:
            found.add([place])
            wanted.add(place)
        elif place in wanted:
            found.remove([place])
            wanted.remove(place)
        assert len(found) == len(wanted)
