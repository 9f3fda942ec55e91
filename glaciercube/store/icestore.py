"""The probability cube in an Icechunk repository: data and marks in one commit, conflicts refused, every run kept.

Only here is Icechunk's interface used; 1.x (Python 3.11) and 2.x differ in what else they offer.
"""

from __future__ import annotations

import pickle
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from itertools import islice
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import xarray as xr
import zarr
from odc.geo.geobox import GeoBox

from glaciercube.errors import StoreError
from glaciercube.store.axis import add_rows, check_same, describe, labels_of, with_provenance
from glaciercube.store.base import Check, Written, checked_rows
from glaciercube.store.layout import StoreOptions, encoding, pack, template
from glaciercube.store.lease import Lease, Ticket
from glaciercube.store.ledger import ARRAYS, Mark
from glaciercube.store.levels import Levels, fingerprint
from glaciercube.store.missing import Missing
from glaciercube.store.objects import Location, clear_errors, first_line

__all__ = ["IcechunkHandle", "IcechunkStore", "readonly_store", "runs_of"]

BRANCH: Final = "main"
# Beside Icechunk's own folders, and nothing that it would clean away.
LEASE: Final = "glaciercube/lease"
# A group of its own: it holds no variable of the cube.
_MARKS: Final = "ledger/key"
_KEY_BYTES: Final = 64
# Dates whose levels are committed together.
_DATES: Final = 64


@dataclass(frozen=True)
class IcechunkHandle:
    """Writes shards into a fork of the driver's session; see `glaciercube.store.base.Handle`.

    Attributes
    ----------
    options : StoreOptions
        Layout and path.
    geobox : GeoBox
        The grid.
    rows : mapping
        Label of each row -> its place.
    fork : bytes
        The fork of the session, pickled: each write starts from a copy of its own.
    epoch : int
        How often others had committed when it was made.
    ticket : Ticket
        The share in the driver's lease.
    """

    options: StoreOptions
    geobox: GeoBox
    rows: Mapping[str, int]
    fork: bytes = field(repr=False)
    epoch: int
    ticket: Ticket

    def write(
        self,
        times: npt.NDArray[np.datetime64],
        block: tuple[int, int],
        probability: npt.NDArray[np.float32],
        quality: npt.NDArray[np.uint8],
        keys: Sequence[str],
        missing: Sequence[Sequence[Missing]] = (),
    ) -> Written:
        """Write one shard of several dates; see `glaciercube.store.base.Handle.write`."""
        rows = checked_rows(
            self.options,
            self.geobox,
            self.rows,
            times=times,
            block=block,
            probability=probability,
            quality=quality,
            keys=keys,
        )
        self.ticket.check()
        y, x = self.options.slices(block, (self.geobox.shape[0], self.geobox.shape[1]))
        fork = pickle.loads(self.fork)  # noqa: S301 - made by our own driver
        marks = []
        with ice_errors(self.options.path):
            root = zarr.open_group(fork.store, mode="r+")
            for i, ((label, index), key) in enumerate(zip(rows, keys, strict=True)):
                for name, values in (("glacier_probability", pack(probability[i])), ("quality", quality[i])):
                    _array(root, name)[index, y, x] = values
                marks.append(Mark(label, index, block, key, (), tuple(missing[i]) if missing else ()))
        return Written(tuple(marks), fork, self.epoch)


class IcechunkStore:
    """An Icechunk repository; see `glaciercube.store.base.Store`.

    Attributes
    ----------
    options : StoreOptions
        Layout and path.
    geobox : GeoBox
        The grid.
    """

    def __init__(
        self, options: StoreOptions, geobox: GeoBox, repository: Any, location: Location, lease: Lease | None
    ) -> None:
        self.options, self.geobox = options, geobox
        self._repository, self._location, self._lease = repository, location, lease
        self._lock = threading.Lock()
        self._epoch, self._last, self._began = 0, "", ""
        if lease is not None:
            self._session = repository.writable_session(BRANCH)
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
            repository = _repository(location, create=True)
            made = _is_made(repository)
            if made:
                check_same(repository.readonly_session(BRANCH).store, location.path, geobox, options)
        lease = Lease(location, LEASE, takeover=takeover)
        try:
            with ice_errors(location.path):
                session = repository.writable_session(BRANCH)
                if _is_made(repository):
                    check_same(session.store, location.path, geobox, options)
                    add_rows(session.store, times, extra)
                    marks = zarr.open_array(session.store, path=_MARKS, mode="r+")
                    length = zarr.open_array(session.store, path="time", mode="r").shape[0]
                    if marks.shape[0] != length:
                        marks.resize((length, *marks.shape[1:]))
                else:
                    _create(
                        session.store, with_provenance(template(geobox, times, extra, options, dict(attrs))), options
                    )
                if session.has_uncommitted_changes:
                    session.commit("rows")
                return cls(options, geobox, repository, location, lease)
        except BaseException:
            lease.release()
            raise

    @classmethod
    def open(cls, options: StoreOptions, geobox: GeoBox) -> Self | None:
        """Open a store as it is, to see what is done; None if there is none yet."""
        location = Location.here(options.path, options.endpoint)
        with ice_errors(location.path):
            repository = _repository(location)
            if repository is None or not _is_made(repository):
                return None
            check_same(repository.readonly_session(BRANCH).store, location.path, geobox, options)
            return cls(options, geobox, repository, location, None)

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
            anew = _record(self._session.store, marks)
            Levels(self._session.store, self.options, self.geobox).invalidate(anew)
            self._commit(f"{len(marks)} shards", {"shards": len(marks)})

    def write(
        self,
        times: npt.NDArray[np.datetime64],
        block: tuple[int, int],
        probability: npt.NDArray[np.float32],
        quality: npt.NDArray[np.uint8],
        keys: Sequence[str],
        missing: Sequence[Sequence[Missing]] = (),
    ) -> None:
        """Write and commit one shard of several dates; see `glaciercube.store.base.Handle.write`."""
        self.commit([self.handle().write(times, block, probability, quality, keys, missing)])

    def done(self, check: Check = "size", *, lacking: bool = True) -> Done:
        """What is done; see `glaciercube.store.base.Store.done`."""
        with ice_errors(self._location.path):
            store = self._repository.readonly_session(BRANCH).store
            keys = np.asarray(zarr.open_array(store, path=_MARKS, mode="r")[:])
            chosen: npt.NDArray[np.bool_] = np.asarray(keys.any(axis=-1))
            labels = labels_of(store)
            if not lacking:
                places = {label: index for index, label in enumerate(labels)}
                for row, block, _ in _missing_in(store):
                    chosen[places[row], block[0], block[1]] = False
            if check == "sha256":
                self._read_all(store, chosen)
        return Done(labels, keys, chosen)

    def missing(self) -> Iterator[tuple[str, tuple[int, int], Missing]]:
        """Scenes that shards were made without."""
        return missing_in(self._location)

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
        keys = np.asarray(zarr.open_array(self._session.store, path=_MARKS, mode="r")[:])
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

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _commit(self, message: str, metadata: dict[str, Any]) -> None:
        import icechunk

        session, others = self._session, False
        try:
            try:
                self._last = session.commit(message, metadata)
            except icechunk.ConflictError:
                # Others committed. If they touched none of our shards, both stand.
                others = True
                session.rebase(icechunk.ConflictDetector())
                self._last = session.commit(message, metadata)
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


class Done:
    """What a store holds; see `glaciercube.store.base.Done`."""

    def __init__(self, labels: list[str], keys: npt.NDArray[np.uint8], chosen: npt.NDArray[np.bool_]) -> None:
        self._labels, self._keys, self._chosen = labels, keys, chosen

    def __iter__(self) -> Iterator[tuple[str, tuple[int, int], str]]:
        for row, y, x in np.argwhere(self._chosen).tolist():
            yield self._labels[row], (y, x), bytes(self._keys[row, y, x]).rstrip(b"\0").decode()

    def __len__(self) -> int:
        return int(self._chosen.sum())


def missing_in(location: Location) -> Iterator[tuple[str, tuple[int, int], Missing]]:
    """Scenes that shards were made without: row, shard, and which and why.

    Raises
    ------
    StoreError
        If there is no store.
    """
    return _missing_in(readonly_store(location))


def readonly_store(location: Location, as_of: str | datetime | None = None) -> Any:
    """The store as it is, or as it was after a run, at a commit or at a time, for `xarray.open_zarr`.

    Parameters
    ----------
    location : Location
        The repository.
    as_of : str, datetime or None
        Name of a run (see `runs_of`), identifier of a snapshot, or a time, ISO 8601 (UTC unless it says otherwise).

    Raises
    ------
    StoreError
        If there is no store, or it was not there then.
    """
    with ice_errors(location.path):
        repository = _repository(location)
        if repository is None:
            raise StoreError(f"there is no store at {location.path}", "check the path")
        if as_of is None:
            return repository.readonly_session(BRANCH).store
        if as_of in repository.list_tags():
            return repository.readonly_session(tag=as_of).store
        time = _time(as_of)
        if time is None:
            return repository.readonly_session(snapshot_id=as_of).store
        return repository.readonly_session(BRANCH, as_of=time).store


def runs_of(location: Location) -> dict[str, datetime]:
    """Name of each run that committed anything -> when it last did, oldest first.

    Raises
    ------
    StoreError
        If there is no store.
    """
    with ice_errors(location.path):
        repository = _repository(location)
        if repository is None:
            raise StoreError(f"there is no store at {location.path}", "check the path")
        found = {tag: next(iter(repository.ancestry(tag=tag))).written_at for tag in repository.list_tags()}
    return dict(sorted(found.items(), key=lambda item: item[1]))


@contextmanager
def ice_errors(path: str) -> Iterator[None]:
    """Say what Icechunk, a disk or a server will not do.

    Raises
    ------
    StoreError
        For their errors.
    """
    icechunk = _icechunk(path)
    with clear_errors(path):
        try:
            yield
        except icechunk.IcechunkError as error:
            told = first_line(error).strip(" x") if "://" not in path else type(error).__name__
            raise StoreError(
                f"cannot use the store {path} ({told})",
                "see that the path is right and the disk or server can be written to, then run again",
            ) from None


def _icechunk(path: str) -> Any:
    try:
        import icechunk
    except ImportError:
        raise StoreError(f"{path} needs Icechunk", "pip install 'glaciercube[icechunk]'") from None
    return icechunk


def _storage(location: Location) -> Any:
    icechunk = _icechunk(location.path)
    if location.scheme == "memory":
        raise StoreError("an Icechunk repository cannot be in memory", "give a folder, or s3://bucket/prefix")
    if not location.scheme:
        # It warns that a folder is not safe for concurrent commits, on standard output; the lease sees to that.
        icechunk.set_logs_filter("icechunk=error")
        return icechunk.local_filesystem_storage(str(location.folder))
    bucket, prefix = location.bucket
    key, secret, token = (
        location.setting(name) for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
    )
    known = {"access_key_id": key, "secret_access_key": secret, "session_token": token or None} if key else {}
    return icechunk.s3_storage(
        bucket=bucket,
        prefix=prefix,
        region=location.setting("AWS_REGION", "AWS_DEFAULT_REGION") or "us-east-1",
        endpoint_url=location.server or None,
        allow_http=location.server.startswith("http://"),
        force_path_style=not location.virtual_hosting,
        from_env=None if known else True,
        **known,
    )


def _repository(location: Location, *, create: bool = False) -> Any:
    icechunk, storage = _icechunk(location.path), _storage(location)
    if icechunk.Repository.exists(storage):
        return icechunk.Repository.open(storage)
    if not create:
        return None
    try:
        return icechunk.Repository.create(storage)
    except icechunk.IcechunkError as error:
        # Somebody else has made it meanwhile, or there is something else.
        if icechunk.Repository.exists(storage):
            return icechunk.Repository.open(storage)
        raise StoreError(
            f"{location.path} exists and is not an Icechunk repository ({first_line(error).strip(' x')})"
            if "clean prefix" in str(error)
            else f"no Icechunk repository can be made at {location.path}",
            "choose another path",
        ) from None


def _is_made(repository: Any) -> bool:
    """True if the cube was committed; a repository that was only begun has no group."""
    try:
        zarr.open_array(repository.readonly_session(BRANCH).store, path=_MARKS, mode="r")
    except FileNotFoundError:
        return False
    return True


def _create(store: Any, empty: xr.Dataset, options: StoreOptions) -> None:
    names = [str(name) for name in empty.variables]
    empty.to_zarr(store, compute=False, zarr_format=3, consolidated=False, encoding=encoding(options, names))
    length, *shape = empty["glacier_probability"].shape
    blocks = tuple(-(-size // options.block) for size in shape)
    zarr.open_group(store, mode="r+").create_array(
        _MARKS,
        shape=(length, *blocks, _KEY_BYTES),
        chunks=(1, *blocks, _KEY_BYTES),
        dtype="uint8",
        fill_value=0,
        dimension_names=("row", "block_y", "block_x", "byte"),
        attributes={"missing": {}},
    )


def _record(store: Any, marks: Iterable[Mark]) -> list[tuple[int, tuple[int, int]]]:
    """Write marks beside the data; row and block of those that there were before."""
    array = zarr.open_array(store, path=_MARKS, mode="r+")
    lacking: dict[str, Any] = dict(array.attrs["missing"])  # type: ignore[arg-type]
    known = dict(lacking)
    rows: dict[int, list[Mark]] = {}
    anew = []
    for mark in marks:
        rows.setdefault(mark.index, []).append(mark)
    for index, some in rows.items():
        keys = np.array(array[index])
        for mark in some:
            if keys[mark.block].any():
                anew.append((index, mark.block))
            keys[mark.block] = np.frombuffer(mark.key.encode().ljust(_KEY_BYTES, b"\0"), "uint8")
            place = f"{mark.row} {mark.block[0]} {mark.block[1]}"
            lacking.pop(place, None)
            if mark.missing:
                lacking[place] = [asdict(each) for each in mark.missing]
        array[index] = keys
    if lacking != known:
        array.attrs["missing"] = lacking
    return anew


def _missing_in(store: Any) -> Iterator[tuple[str, tuple[int, int], Missing]]:
    known: Any = zarr.open_array(store, path=_MARKS, mode="r").attrs["missing"]
    for place, every in known.items():
        row, y, x = place.split(" ")
        yield from ((row, (int(y), int(x)), Missing(**each)) for each in every)


def _array(root: zarr.Group, name: str) -> zarr.Array[Any]:
    array = root[name]
    if not isinstance(array, zarr.Array):
        raise StoreError(f"{name} is no array", "choose another path")
    return array


def _time(text: str | datetime) -> datetime | None:
    if isinstance(text, str):
        try:
            text = datetime.fromisoformat(text)
        except ValueError:
            return None
    return text if text.tzinfo else text.replace(tzinfo=UTC)


def _conflict(path: str) -> StoreError:
    return StoreError(
        f"another run has written the same shards of {path} meanwhile, and its are kept",
        "see that one run at a time uses it, then run again: only what is missing or changed is computed",
    )
