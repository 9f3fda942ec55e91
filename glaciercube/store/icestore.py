"""The probability cube in an Icechunk repository: data and marks in one commit, conflicts refused, every run kept."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import xarray as xr
import zarr
from odc.geo.geobox import GeoBox

from glaciercube.errors import StoreError
from glaciercube.store.axis import add_rows, check_same, describe, labels_of, with_provenance
from glaciercube.store.base import Check, Handle, Store, Written
from glaciercube.store.icemarks import Done, create, is_made, keys_of, lengthen, missing_of, record
from glaciercube.store.icerepo import BRANCH, commit, ice_errors, repository
from glaciercube.store.layout import StoreOptions, pack, template
from glaciercube.store.lease import Lease, Ticket
from glaciercube.store.ledger import ARRAYS, Mark
from glaciercube.store.levels import Levels, delete_within, fingerprint
from glaciercube.store.objects import Location

__all__ = ["LEASE", "IcechunkHandle", "IcechunkStore"]

# Beside Icechunk's own folders, and nothing that it would clean away.
LEASE: Final = "glaciercube/lease"
# Dates whose levels are committed together.
_DATES: Final = 64


@dataclass(frozen=True)
class IcechunkHandle(Handle):
    """Writes shards into a fork of the driver's session; see `glaciercube.store.base.Handle`.

    Attributes
    ----------
    options, geobox, rows
        As of every handle.
    fork : bytes
        The fork of the session, pickled: each write starts from a copy of its own.
    epoch : int
        How often others had committed when it was made.
    ticket : Ticket
        The share in the driver's lease.
    """

    fork: bytes = field(repr=False)
    epoch: int
    ticket: Ticket

    def _write(
        self, marks: tuple[Mark, ...], probability: npt.NDArray[np.float32], quality: npt.NDArray[np.uint8]
    ) -> Written:
        self.ticket.check()
        fork = pickle.loads(self.fork)  # noqa: S301 - made by our own driver
        with ice_errors(self.options.path):
            root = zarr.open_group(fork.store, mode="r+")
            for i, mark in enumerate(marks):
                y, x = self.options.slices(mark.block, (self.geobox.shape[0], self.geobox.shape[1]))
                for name, values in (("glacier_probability", pack(probability[i])), ("quality", quality[i])):
                    _array(root, name)[mark.index, y, x] = values
        return Written(marks, fork, self.epoch)


class IcechunkStore(Store):
    """An Icechunk repository; see `glaciercube.store.base.Store`.

    Attributes
    ----------
    options : StoreOptions
        Layout and path.
    geobox : GeoBox
        The grid.
    """

    def __init__(
        self, options: StoreOptions, geobox: GeoBox, found: Any, location: Location, lease: Lease | None
    ) -> None:
        self.options, self.geobox = options, geobox
        self._repository, self._location, self._lease = found, location, lease
        self._lock = threading.Lock()
        self._epoch, self._last, self._began = 0, "", ""
        # Dates without levels, since this writer took them away.
        self._cleared: set[int] = set()
        if lease is not None:
            self._session = found.writable_session(BRANCH)
            self._began = self._last = self._session.snapshot_id
            self._rows = {label: index for index, label in enumerate(labels_of(self._session.store))}

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
        """Make the store, or open it and add the rows that it lacks; see `glaciercube.store.opening.open_writer`."""
        location = Location.here(options.path, options.endpoint)
        with ice_errors(location.path):
            found = repository(location, create=True)
            if is_made(found):
                check_same(found.readonly_session(BRANCH).store, location.path, geobox, options)
        lease = Lease(location, LEASE, takeover=takeover)
        try:
            with ice_errors(location.path):
                session = found.writable_session(BRANCH)
                if is_made(found):
                    check_same(session.store, location.path, geobox, options)
                    add_rows(session.store, times, extra)
                    lengthen(session.store)
                else:
                    create(session.store, with_provenance(template(geobox, times, extra, dict(attrs))), options)
                if session.has_uncommitted_changes:
                    commit(found, session, "rows", {})
                return cls(options, geobox, found, location, lease)
        except BaseException:
            lease.release()
            raise

    @classmethod
    def open(cls, options: StoreOptions, geobox: GeoBox) -> Self | None:
        """Open a store as it is, to see what is done; None if there is none yet."""
        location = Location.here(options.path, options.endpoint)
        with ice_errors(location.path):
            found = repository(location)
            if found is None or not is_made(found):
                return None
            check_same(found.readonly_session(BRANCH).store, location.path, geobox, options)
            return cls(options, geobox, found, location, None)

    @property
    def _writing(self) -> Lease:
        if self._lease is None:
            raise StoreError(f"the store {self._location.path} was opened for reading", "use open_writer")
        return self._lease

    def prepare(self, shards: Iterable[tuple[str, tuple[int, int]]]) -> None:  # noqa: ARG002 - the protocol's
        """Nothing is to be withdrawn: what was committed stands until the same commit replaces data and mark."""
        self._writing.check()

    def handle(self) -> IcechunkHandle:
        """What workers write with."""
        with ice_errors(self._location.path), self._lock:
            # Of a session of its own: one that was forked can commit nothing before it is merged.
            fork = pickle.dumps(self._repository.writable_session(BRANCH).fork())
            return IcechunkHandle(self.options, self.geobox, self._rows, fork, self._epoch, self._writing.ticket)

    def commit(self, written: Iterable[Written]) -> None:
        """Commit what workers wrote, with its marks.

        Raises
        ------
        StoreError
            If the lease was lost, or another run has written the same shards: nothing is committed then.
        """
        written = list(written)
        marks = [mark for one in written for mark in one.marks]
        if not marks:
            return
        self._writing.check()
        shards = [(mark.row, mark.block) for mark in marks]
        if len(set(shards)) < len(shards):
            raise StoreError(
                f"shards of {self._location.path} were written twice", "give each shard to one worker, once"
            )
        with ice_errors(self._location.path), self._lock:
            if any(one.epoch < self._epoch for one in written):
                raise _conflict(self._location.path)
            for one in written:
                self._session.merge(one.fork)
            anew = record(self._session.store, marks)
            store = self._session.store
            if rows := {index for index, _ in anew} - self._cleared:
                Levels(store, self.options, self.geobox).invalidate(rows, partial(delete_within, store))
            self._commit(f"{len(marks)} shards", {"shards": len(marks)})
            self._cleared |= rows

    def done(self, check: Check = "size", *, lacking: bool = True) -> Done:
        """What is done; see `glaciercube.store.base.Store.done`."""
        with ice_errors(self._location.path):
            store = self._repository.readonly_session(BRANCH).store
            keys = keys_of(store)
            chosen: npt.NDArray[np.bool_] = np.asarray(keys.any(axis=-1))
            labels = labels_of(store)
            if not lacking:
                places = {label: index for index, label in enumerate(labels)}
                for row, block, _ in missing_of(store):
                    chosen[places[row], block[0], block[1]] = False
            if check == "sha256":
                self._read_all(store, chosen)
        return Done(labels, keys, chosen)

    def describe(self, provenance: Mapping[str, Any], source: str) -> None:
        """Say how the planned rows were made; see `glaciercube.store.base.Store.describe`."""
        self._writing.check()
        with ice_errors(self._location.path), self._lock:
            try:
                describe(self._session.store, self._location.path, provenance, source)
            except BaseException:
                self._session = self._repository.writable_session(BRANCH)
                raise
            if self._session.has_uncommitted_changes:
                self._commit("provenance", {})

    def build_levels(self) -> list[str]:
        """Build the coarser levels of dates that are complete and have none; some dates to a commit."""
        built: list[int] = []
        with ice_errors(self._location.path), self._lock:
            while stale := self._without_levels(_DATES):
                self._writing.check()
                levels = Levels(self._session.store, self.options, self.geobox)
                self._cleared.clear()
                levels.begin()
                built += levels.build(stale)
                self._commit(f"levels of {len(stale)} dates", {"levels": len(stale)})
        labels = list(self._rows)
        return [labels[row] for row in sorted(built)]

    def _without_levels(self, count: int) -> dict[int, bytes]:
        """Some dates that are complete and whose levels are not: place -> what to make them from."""
        levels = Levels(self._session.store, self.options, self.geobox)
        if not levels.count:
            return {}
        keys = keys_of(self._session.store)
        whole = np.flatnonzero(keys.any(axis=-1).reshape(len(keys), -1).all(axis=1)).tolist()
        known = levels.built()
        wanted = ((row, fingerprint([keys[row].tobytes().hex()])) for row in whole)
        return dict(islice(((row, made) for row, made in wanted if known.get(row) != made), count))

    def close(self) -> None:
        """Name what this run committed, so that it can be opened by that name, and give the lease back."""
        if self._lease is None:
            return
        if self._last != self._began:
            with ice_errors(self._location.path):
                now = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
                self._repository.create_tag(f"run-{now}-{self._lease.number}", self._last)
            self._began = self._last
        self._lease.release()

    def _commit(self, message: str, metadata: dict[str, Any]) -> None:
        import icechunk

        session, others = self._session, False
        try:
            try:
                self._last = commit(self._repository, session, message, metadata)
            except icechunk.ConflictError:
                # Others committed. If they touched none of our shards, both stand.
                others = True
                session.rebase(icechunk.ConflictDetector())
                self._last = commit(self._repository, session, message, metadata)
        except (icechunk.ConflictError, icechunk.RebaseFailedError):
            raise _conflict(self._location.path) from None
        finally:
            self._session = self._repository.writable_session(BRANCH)
            # Forks from before know nothing of what others wrote, and would write over it.
            self._epoch += others or self._session.snapshot_id != self._last

    def _read_all(self, store: Any, chosen: npt.NDArray[np.bool_]) -> None:
        root = zarr.open_group(store, mode="r")
        for row, *block in np.argwhere(chosen):
            y, x = self.options.slices((int(block[0]), int(block[1])), (self.geobox.shape[0], self.geobox.shape[1]))
            try:
                for name in ARRAYS:
                    _array(root, name)[int(row), y, x]
            except Exception:  # noqa: BLE001 - whatever a codec or Icechunk makes of it, it is not what was written
                chosen[row, block[0], block[1]] = False


def _array(root: zarr.Group, name: str) -> zarr.Array[Any]:
    array = root[name]
    if not isinstance(array, zarr.Array):
        raise StoreError(f"{name} is no array", "choose another path")
    return array


def _conflict(path: str) -> StoreError:
    return StoreError(
        f"another run has written the same shards of {path} meanwhile, and its are kept",
        "see that one run at a time uses it, then run again: only what is missing or changed is computed",
    )
