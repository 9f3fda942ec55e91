"""The probability cube as plain Zarr, in a folder or a bucket: made once, written shard by shard, opened by anyone."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import xarray as xr
from odc.geo.geobox import GeoBox

from glaciercube.errors import StoreError
from glaciercube.store.axis import add_rows, check_same, describe, labels_of, with_provenance
from glaciercube.store.base import Check, Store, Written
from glaciercube.store.encode import one_row
from glaciercube.store.layout import StoreOptions, template
from glaciercube.store.lease import Lease
from glaciercube.store.ledger import ARRAYS, Entries, Ledger, Mark, SegmentExistsError
from glaciercube.store.levels import Levels
from glaciercube.store.missing import Missing
from glaciercube.store.objects import Location, clear_errors, delete_all
from glaciercube.store.shards import Shards, codes
from glaciercube.store.verify import still_there
from glaciercube.store.zarrhandle import ZarrHandle
from glaciercube.store.zarrmake import LEASE, LEDGER, consolidate, create, is_there

__all__ = ["ZarrHandle", "ZarrStore", "missing_in"]

_ATTEMPTS: Final = 5


class ZarrStore(Store):
    """A plain Zarr store with its ledger; see `glaciercube.store.base.Store`.

    Attributes
    ----------
    options : StoreOptions
        Layout and path.
    geobox : GeoBox
        The grid.
    ledger : Ledger
        What is done.
    """

    def __init__(self, options: StoreOptions, geobox: GeoBox, location: Location, lease: Lease | None) -> None:
        self.options, self.geobox = options, geobox
        self._location, self._lease = location, lease
        self._objects = location.objects()
        self.ledger = Ledger(self._objects, LEDGER)
        self._rows = {label: index for index, label in enumerate(labels_of(location.objects().zarr(read_only=True)))}
        self._live: Shards | None = None
        # Dates without levels, since this writer took them away.
        self._cleared: set[int] = set()
        self._lock = threading.Lock()

    @classmethod
    def create_or_open(
        cls,
        options: StoreOptions,
        geobox: GeoBox,
        times: npt.NDArray[np.datetime64],
        extra: xr.Dataset,
        attrs: Mapping[str, Any],
        *,
        takeover: bool = False,
    ) -> Self:
        """Make the store, or open it and add the rows that it lacks; it is then this writer's until it is closed.

        Parameters
        ----------
        options : StoreOptions
            Layout and path.
        geobox : GeoBox
            The grid; an existing store must have the same.
        times : (time) datetime64
            Rows that must exist.
        extra : Dataset (time)
            Variables and coordinates per row.
        attrs : mapping
            Global attributes of a new store.
        takeover : bool
            Take it from a writer that has died elsewhere.

        Raises
        ------
        GridMismatchError
            If a store of another grid or layout is there.
        StoreError
            If the path holds something else, cannot be written, or somebody else writes to it.
        """
        location = Location.here(options.path, options.endpoint)
        objects = location.objects()
        with clear_errors(location.path):
            # Before anything is written there.
            if is_there(objects, location.path):
                check_same(objects.zarr(read_only=True), location.path, geobox, options)
        lease = Lease(location, LEASE, takeover=takeover)
        try:
            with clear_errors(location.path):
                if is_there(objects, location.path):
                    check_same(objects.zarr(read_only=True), location.path, geobox, options)
                    add_rows(objects.zarr(), times, extra)
                    consolidate(objects)
                else:
                    create(objects, with_provenance(template(geobox, times, extra, dict(attrs))), options)
                store = cls(options, geobox, location, lease)
                store.ledger.join()
        except BaseException:
            lease.release()
            raise
        return store

    @classmethod
    def open(cls, options: StoreOptions, geobox: GeoBox) -> Self | None:
        """Open a store as it is, to see what is done; None if there is none yet.

        Raises
        ------
        GridMismatchError
            If it is of another grid or layout.
        StoreError
            If the path holds something else.
        """
        location = Location.here(options.path, options.endpoint)
        objects = location.objects()
        with clear_errors(location.path):
            if not is_there(objects, location.path):
                return None
            check_same(objects.zarr(read_only=True), location.path, geobox, options)
            return cls(options, geobox, location, None)

    @property
    def _writing(self) -> Lease:
        if self._lease is None:
            raise StoreError(f"the store {self._location.path} was opened for reading", "use open_writer")
        return self._lease

    def prepare(self, shards: Iterable[tuple[str, tuple[int, int]]]) -> None:
        """Withdraw what is said of shards that are about to be written anew."""
        self._writing.check()
        with clear_errors(self._location.path), self._lock:
            live = self._marked()
            stale = sorted(set(live.among((self._rows[label], block) for label, block in shards)))
            if stale:
                labels = list(self._rows)
                # While they still count as done: a kill in between, and the next run comes here again.
                if rows := {index for index, _ in stale} - self._cleared:
                    self._levels.invalidate(rows, partial(delete_all, self._objects))
                    self._cleared |= rows
                self._append([], [(labels[index], index, block) for index, block in stale])
                live.remove(stale)

    def handle(self) -> ZarrHandle:
        """What workers write with."""
        with clear_errors(self._location.path):
            metadata = {name: one_row(self._objects.get(f"{name}/zarr.json")) for name in ARRAYS}
        return ZarrHandle(self.options, self.geobox, dict(self._rows), self._location, metadata, self._writing.ticket)

    def commit(self, written: Iterable[Written]) -> None:
        """Vouch for what workers wrote, in one segment of the ledger.

        Raises
        ------
        StoreError
            If the lease was lost, or shards were written anew without `prepare`.
        """
        marks = [mark for one in written for mark in one.marks]
        self._writing.check()
        with clear_errors(self._location.path), self._lock:
            live = self._marked()
            shards = [(mark.index, mark.block) for mark in marks]
            if len(set(shards)) < len(shards) or live.among(shards):
                raise StoreError(
                    f"shards of {self._location.path} were written twice, or anew and still counted as done",
                    "give each shard to one worker, and call prepare before it is written anew",
                )
            self._append(marks, [])
            live.add(shards)

    def done(self, check: Check = "size", *, lacking: bool = True) -> Done:
        """What is done, and still there; see `glaciercube.store.base.Store.done`."""
        with clear_errors(self._location.path):
            entries = self._known(self.ledger.entries())
            if not lacking:
                entries = entries.keep(np.asarray(entries.table["missing"].is_null().to_numpy()))
            return Done(still_there(self._objects, entries, check))

    def describe(self, provenance: Mapping[str, Any], source: str) -> None:
        """Say how the planned rows were made.

        Parameters
        ----------
        provenance : mapping
            Plain values, kept as attributes of the scalar ``provenance``. What is a mapping by row or by scene is added
            to what is there; everything else replaces it.
        source : str
            CF attribute ``source`` of the whole.

        Raises
        ------
        StoreError
            If rows that this run does not redo were made in another way, or the disk does not take it.
        """
        self._writing.check()
        with clear_errors(self._location.path):
            describe(self._objects.zarr(), self._location.path, provenance, source)
            consolidate(self._objects)

    def build_levels(self) -> list[str]:
        """Build the coarser levels of dates that are complete and have none; see `glaciercube.store.levels`."""
        built = []
        with clear_errors(self._location.path):
            wanted, known = self._complete(), self._levels.built()
            stale = {row: made for row, made in wanted.items() if known.get(row) != made}
            if stale and self._levels.count:
                self._writing.check()
                self._cleared.clear()
                self._levels.begin()
                consolidate(self._objects)
            labels = list(self._rows)
            for row in self._levels.build(stale) if stale and self._levels.count else ():
                self._writing.check()
                built.append(labels[row])
        return built

    def close(self) -> None:
        """Give the lease back."""
        if self._lease is not None:
            self._lease.release()

    def _marked(self) -> Shards:
        """What counts as done, whether or not it is still there."""
        if self._live is None:
            known = self._known(self.ledger.entries())
            self._live = Shards(codes(known.column("row"), known.column("y"), known.column("x")))
        return self._live

    def _known(self, entries: Entries) -> Entries:
        """Entries of rows that the store has, where it has them."""
        times = np.array(list(self._rows), "datetime64[s]")
        index = entries.column("row")
        inside = index < len(times)
        inside[inside] &= times[index[inside]] == entries.column("time")[inside]
        return entries.keep(inside)

    @property
    def _levels(self) -> Levels:
        return Levels(self._objects.zarr(), self.options, self.geobox)

    def _complete(self) -> dict[int, bytes]:
        """Place of each date whose shards are all done -> what its levels are to be made from."""
        whole = int(np.prod([-(-size // self.options.block) for size in self.geobox.shape]))
        return self._known(self.ledger.entries()).complete(whole)

    def _append(self, marks: list[Mark], withdrawn: list[tuple[str, int, tuple[int, int]]]) -> None:
        for _ in range(_ATTEMPTS):
            try:
                self.ledger.append(marks, withdrawn)
            except SegmentExistsError:
                # A writer that has lost its lease was at it once more: if that is us, this says so.
                self._writing.check()
            else:
                return
        raise StoreError(f"somebody else writes to {self._location.path}", "see that one run at a time uses it")


class Done:
    """What a store holds; see `glaciercube.store.base.Done`."""

    def __init__(self, entries: Entries) -> None:
        self.entries = entries

    def __iter__(self) -> Iterator[tuple[str, tuple[int, int], str]]:
        return self.entries.keys()

    def __len__(self) -> int:
        return len(self.entries)


def missing_in(location: Location) -> Iterator[tuple[str, tuple[int, int], Missing]]:
    """Scenes that shards of a plain Zarr store were made without: row, shard, and which and why.

    Raises
    ------
    StoreError
        If there is no store.
    """
    objects = location.objects()
    with clear_errors(location.path, reading=True):
        if not is_there(objects, location.path):
            raise StoreError(f"there is no store at {location.path}", "check the path")
        entries = Ledger(objects, LEDGER).entries()
    for mark in entries.keep(np.asarray(entries.table["missing"].is_valid().to_numpy())):
        yield from ((mark.row, mark.block, each) for each in mark.missing)
