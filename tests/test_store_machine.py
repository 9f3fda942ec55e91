"""The store against a model in memory, under everything that may happen to it.

Theorem. Let runs, each of which may be killed at any of its writes, follow one another on a store: they add dates in
any order, change what dates are made of, do what is missing, and are interfered with by second runs and by damage to
files. Then at every moment

1. sound: what the store says is done, decoded, is exactly what its key says;
2. complete: what a run committed, and no later run began to write anew and nobody damaged, is still done;
3. honest: what was never written is missing, and never a probability; the levels for viewers show means of what is
   done, or nothing;

and a run that is not killed makes the store equal to the model.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import patch

import numpy as np
import pytest
import xarray as xr
import zarr
from affine import Affine
from conftest import FULL
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from odc.geo.geobox import GeoBox

from glaciercube.errors import StoreError
from glaciercube.store import Store, StoreOptions, open_reader, open_store, open_writer
from glaciercube.store.objects import Location, _Folder, _ObjectStore

GRID = GeoBox((40, 24), Affine(20, 0, 500000, 0, -20, 6000000), "EPSG:32645")
BLOCKS = ((0, 0), (1, 0))
DATES = [f"20{year}-07-01T10:00:00" for year in range(15, 25)]
_OPTIONS = settings(
    max_examples=150 if FULL else 4,
    stateful_step_count=30 if FULL else 12,
    # The same walks on every machine; make test-all walks at random.
    derandomize=not FULL,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)

Shard = tuple[str, tuple[int, int]]


class KilledError(BaseException):
    """The process ends here."""


def pixels(key: str, shard: Shard) -> tuple[Any, Any]:
    """What a key says of a shard: most are constant, so that different ones are as long."""
    label, block = shard
    draw = hashlib.sha256(f"{key}{label}{block}".encode()).digest()
    shape = (32 if block[0] == 0 else 8, 24)
    probability = np.full(shape, draw[0] % 251 * 0.004, "float32")
    probability[0, draw[1] % 24] = np.nan
    if draw[2] < 40:
        probability[:] = np.nan  # nothing is stored of it
    return probability, np.full(shape, 1 + draw[3] % 7, "uint8")


def means(probability: Any, scale: int) -> Any:
    """Of what is valid, as it is packed."""
    high, wide = (size // scale for size in probability.shape)
    packed = (probability / 0.004).reshape(high, scale, wide, scale)
    valid = ~np.isnan(packed)
    count = valid.sum(axis=(1, 3))
    total = np.where(valid, packed, 0).round().sum(axis=(1, 3))
    return np.where(count > 0, np.rint(total / np.maximum(count, 1)) * 0.004, np.nan)


@contextmanager
def killed_at(count: int, tear: bool) -> Iterator[None]:
    """End at the given write, whichever kind of store it is; perhaps halfway through a shard, as when power fails."""
    left = count

    def wrapped(original: Callable[..., Any], torn: bool = False) -> Callable[..., Any]:
        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            nonlocal left
            if threading.current_thread().name == "glaciercube-lease":
                # It beats when it likes, and says nothing of what is in the store.
                return original(self, *args, **kwargs)
            left -= 1
            if left == 0:
                if torn and tear and "/c/" in args[0]:
                    original(self, args[0], args[1][: len(args[1]) // 2])
                raise KilledError
            result = original(self, *args, **kwargs)
            left -= 1
            if left == 0:
                raise KilledError
            return result

        return call

    import icechunk

    with (
        patch.object(_Folder, "put", wrapped(_Folder.put, torn=True)),
        patch.object(_Folder, "create", wrapped(_Folder.create)),
        patch.object(_Folder, "delete", wrapped(_Folder.delete)),
        patch.object(_ObjectStore, "put", wrapped(_ObjectStore.put, torn=True)),
        patch.object(_ObjectStore, "create", wrapped(_ObjectStore.create)),
        patch.object(_ObjectStore, "delete", wrapped(_ObjectStore.delete)),
        patch.object(zarr.Array, "__setitem__", wrapped(zarr.Array.__setitem__)),
        patch.object(zarr.Array, "resize", wrapped(zarr.Array.resize)),
        patch.object(icechunk.Session, "commit", wrapped(icechunk.Session.commit)),
    ):
        yield


class StoreMachine(RuleBasedStateMachine):
    """Runs of one store, and what they should come to."""

    kind: ClassVar[str] = "disk"

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="glaciercube-machine-"))
        path = {"memory": f"memory://{uuid.uuid4()}", "disk": str(self.folder / "a.zarr")}.get(self.kind)
        self.options = StoreOptions(path or str(self.folder / "a.icechunk"), shard=32, chunk=16)
        self.wanted: dict[Shard, str] = {}
        # What must be done, and what was ever given to the store to write.
        self.sure: dict[Shard, str] = {}
        self.tried: set[Shard] = set()
        self.edition = 0
        self.flipped = self.levels = False
        self.dates: list[str] = []

    def teardown(self) -> None:
        shutil.rmtree(getattr(self, "folder", "nowhere"), ignore_errors=True)

    # What users do.

    @rule(dates=st.lists(st.sampled_from(DATES), min_size=1, max_size=2, unique=True))
    def new_dates(self, dates: list[str]) -> None:
        """An update finds dates, also such as lie before others."""
        for date in dates:
            if date not in self.dates:
                self.dates.append(date)
                self.wanted.update({(date, block): "0" for block in BLOCKS})

    @precondition(lambda self: self.dates)
    @rule(data=st.data())
    def revise(self, data: st.DataObject) -> None:
        """The scenes of a date were reprocessed, or the run goes back to what it was made of before."""
        date = data.draw(st.sampled_from(self.dates))
        key = data.draw(st.sampled_from(["0", "1", str(self.edition)]))
        self.edition += 1
        self.wanted.update({(date, block): key for block in BLOCKS})

    @precondition(lambda self: self.dates)
    @rule(batch=st.integers(1, 4), levels=st.booleans())
    def run(self, batch: int, levels: bool) -> None:
        """A run that ends well makes the store equal to the model."""
        with self._open() as store:
            self._work(store, batch, levels)
        self._after_a_whole_run()
        if levels:
            self._levels_show_what_is_done(self.wanted, whole=True)

    @precondition(lambda self: self.dates)
    @rule(batch=st.integers(1, 4), levels=st.booleans(), at=st.integers(1, 60), tear=st.booleans())
    def killed_run(self, batch: int, levels: bool, at: int, tear: bool) -> None:
        store: Store | None = None
        try:
            # An Icechunk store has fewer writes of its own.
            with killed_at(1 + at // 3 if self.kind == "icechunk" else at, tear):
                store = self._open()
                self._work(store, batch, levels)
        except KilledError:
            self._die(store)
        else:
            store.close()
            self._after_a_whole_run()

    @precondition(lambda self: self.dates)
    @rule(batch=st.integers(1, 4))
    def second_run_beside_it(self, batch: int) -> None:
        """It is refused by name, and the first goes on."""
        with self._open() as store:
            with pytest.raises(StoreError, match=r"is being written by .*\(pid \d+"):
                self._open()
            self._work(store, batch, levels=False)
        self._after_a_whole_run()

    @precondition(lambda self: self.dates)
    @rule(batch=st.integers(1, 4))
    def taken_over(self, batch: int) -> None:
        """The first run sleeps with shards written and not committed; when it wakes, it can do nothing any more."""
        first = self._open()
        todo = self._todo(first)
        late = []
        if todo:
            first.prepare(todo[:1])
            self.sure.pop(todo[0], None)
            self.tried.add(todo[0])
            late.append(self._write(first.handle(), todo[0]))
        handle = first.handle()
        second = self._open(takeover=True)
        self._work(second, batch, levels=False)
        if late:
            with pytest.raises(StoreError, match="was taken over by"):
                first.commit(late)
            with pytest.raises(StoreError, match="was taken over by"):
                self._write(handle, todo[0])
        second.close()
        first.close()
        self._after_a_whole_run()

    @precondition(lambda self: self.sure and self.kind != "icechunk")
    @rule(data=st.data(), how=st.sampled_from(["gone", "short", "flipped"]))
    def damage(self, data: st.DataObject, how: str) -> None:
        objects = Location.here(self.options.path).objects()
        shards = sorted(entry.key for entry in objects.list("glacier_probability/c"))
        if not shards:
            return
        key = data.draw(st.sampled_from(shards))
        whole = objects.get(key)
        if how == "gone":
            objects.delete(key)
        else:
            flipped = whole[:-1] + bytes([whole[-1] ^ 1])
            objects.put(key, whole[:-3] if how == "short" else flipped)
        # On disk nothing but reading it tells that a byte has changed.
        self.flipped |= how == "flipped"
        index, y, x = (int(part) for part in key.rsplit("/", 3)[1:])
        store = open_reader(self.options, GRID)
        assert store is not None
        row = next(label for label, place in store._rows.items() if place == index)  # type: ignore[attr-defined]
        self.sure.pop((row, (y, x)), None)

    # What holds at every moment.

    @invariant()
    def what_is_done_is_what_its_key_says(self) -> None:
        store = open_reader(self.options, GRID) if getattr(self, "dates", None) else None
        if store is None:
            assert not getattr(self, "sure", None)
            return
        done = {(row, block): key for row, block, key in store.done("sha256")}
        cube = open_store(self.options.path)
        for shard, key in done.items():
            self._assert_holds(cube, shard, key)
        assert self.sure.items() <= done.items()
        for label in {str(time.astype("datetime64[s]")) for time in cube["time"].to_numpy()}:
            for block in BLOCKS:
                if (label, block) not in self.tried:
                    assert np.isnan(self._found(cube, (label, block))[0]).all()
        if self.levels:
            self._levels_show_what_is_done(done)

    # How it is done.

    def _open(self, *, takeover: bool = False) -> Store:
        times = np.array(self.dates, "datetime64[s]")
        extra = xr.Dataset({"age": ("time", np.arange(len(times), dtype="float32"))})
        return open_writer(self.options, GRID, times, extra, {}, takeover=takeover)

    def _todo(self, store: Store) -> list[Shard]:
        done = {(row, block): key for row, block, key in store.done("sha256" if self.flipped else "size")}
        return sorted(shard for shard, key in self.wanted.items() if done.get(shard) != key)

    def _work(self, store: Store, batch: int, levels: bool) -> None:
        todo = self._todo(store)
        for shard in todo:
            self.sure.pop(shard, None)
        store.prepare(todo)
        handle = store.handle()
        for start in range(0, len(todo), batch):
            some = todo[start : start + batch]
            self.tried.update(some)
            store.commit([self._write(handle, shard) for shard in some])
            self.sure.update({shard: self.wanted[shard] for shard in some})
        if levels:
            self.levels = True
            store.build_levels()

    def _write(self, handle: Any, shard: Shard) -> Any:
        label, block = shard
        probability, quality = pixels(self.wanted[shard], shard)
        times = np.array([label], "datetime64[s]")
        return handle.write(times, block, probability[None], quality[None], [self.wanted[shard]])

    def _die(self, store: Store | None) -> None:
        """The process is gone: its lease stays, and says who had it."""
        import gc
        import weakref

        # not isinstance: it asks for __class__, and some lazy objects of torch warn when asked
        for lease in [one for one in gc.get_objects() if type(one) is weakref.finalize]:
            alive = lease.peek()
            if alive and type(alive[0]).__name__ == "Lease" and alive[0]._location.path == self.options.path:
                alive[0]._held.ended.set()
                lease.detach()
        del store
        objects = Location.here(self.options.path).objects()
        for folder in ("provenance/lease", "glaciercube/lease"):
            for entry in list(objects.list(folder)):
                holder = json.loads(objects.get(entry.key))
                objects.put(entry.key, json.dumps({**holder, "born": "dead"}).encode())

    def _after_a_whole_run(self) -> None:
        cube = open_store(self.options.path)
        assert [str(time.astype("datetime64[s]")) for time in cube["time"].to_numpy()] == sorted(self.dates)
        for shard, key in self.wanted.items():
            self._assert_holds(cube, shard, key)
        assert self.sure == self.wanted

    def _assert_holds(self, cube: xr.Dataset, shard: Shard, key: str) -> None:
        probability, quality = pixels(key, shard)
        found = self._found(cube, shard)
        np.testing.assert_allclose(found[0], probability, atol=1e-6)
        np.testing.assert_array_equal(found[1], quality)

    def _levels_show_what_is_done(self, done: dict[Shard, str], *, whole: bool = False) -> None:
        for level in (1, 2):
            try:
                coarse = open_store(self.options.path, level=level)
            except StoreError:
                assert not whole
                continue  # it was not made to the end
            times = {str(time.astype("datetime64[s]")) for time in coarse["time"].to_numpy()}
            for shard, key in done.items():
                if shard[0] in times:
                    found, wanted = self._found(coarse, shard, 2**level)[0], means(pixels(key, shard)[0], 2**level)
                    assert (not whole and np.isnan(found).all()) or np.allclose(
                        found, wanted, atol=1e-6, equal_nan=True
                    )

    def _found(self, cube: xr.Dataset, shard: Shard, scale: int = 1) -> tuple[Any, Any]:
        y, x = (slice(span.start // scale, span.stop // scale) for span in self.options.slices(shard[1], (40, 24)))
        here = cube.sel(time=shard[0]).squeeze().isel(y=y, x=x)
        return here["glacier_probability"].to_numpy(), here["quality"].to_numpy()


class InMemory(StoreMachine):
    kind = "memory"


class InIcechunk(StoreMachine):
    kind = "icechunk"


TestOnDisk = StoreMachine.TestCase
TestOnDisk.settings = _OPTIONS
TestInMemory = InMemory.TestCase
TestInMemory.settings = _OPTIONS
TestInIcechunk = InIcechunk.TestCase
TestInIcechunk.settings = _OPTIONS
