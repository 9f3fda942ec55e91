"""The ledger: which shard of which date was written, from what, with which checksum.

It is a row of numbered segments. A segment is made if there is none of its number, and never changed; for one shard of
one date the segment of the highest number counts. An entry vouches for a shard, or withdraws what was said of it. What
no entry vouches for is not done.
"""

from __future__ import annotations

import hashlib
import io
import json
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from glaciercube.store.missing import Missing
from glaciercube.store.objects import Listed, Objects, delete_all
from glaciercube.store.shards import codes

__all__ = ["ARRAYS", "Entries", "Ledger", "Mark", "Piece", "SegmentExistsError", "checksum", "shard_key"]

# Variables that are sharded, in the order in which they are written.
ARRAYS: Final = ("glacier_probability", "quality")
# Readers at a time; segments above which they are joined into one.
_READERS: Final = 16
_MANY: Final = 64

_PIECE: Final = [("size", pa.int64()), ("sha256", pa.binary()), ("etag", pa.string())]
_SCHEMA: Final = pa.schema(
    [
        ("time", pa.timestamp("s")),
        ("row", pa.int32()),
        ("y", pa.int32()),
        ("x", pa.int32()),
        # Null where an entry withdraws.
        ("key", pa.string()),
        *((f"{name}_{part}", kind) for name in ARRAYS for part, kind in _PIECE),
        # Scenes that it was made without, as JSON; null where there are none.
        ("missing", pa.string()),
    ]
)
# Texts that repeat are held once.
_REPEATED: Final = ("key", "missing")
_READ: Final = pa.schema(
    [pa.field(f.name, pa.dictionary(pa.int32(), pa.string()) if f.name in _REPEATED else f.type) for f in _SCHEMA]
)
_WHOLE: Final = b"glaciercube_everything_before"


class SegmentExistsError(Exception):
    """Somebody else has appended to the ledger."""


@dataclass(frozen=True)
class Piece:
    """One shard file or object as it was written.

    Attributes
    ----------
    size : int
        Bytes; 0 where all is fill and nothing is stored.
    sha256 : str
        Of those bytes, hex; empty where nothing is stored.
    etag : str
        The server's name for them; empty on disk.
    """

    size: int
    sha256: str
    etag: str = ""


@dataclass(frozen=True)
class Mark:
    """Proof that one shard of one date is done.

    Attributes
    ----------
    row : str
        The row's time, ISO 8601 to the second.
    index : int
        Its place on the time axis.
    block : (int, int)
        Row and column of the shard.
    key : str
        Hash over everything that decides its pixels.
    pieces : tuple of Piece
        What was stored, in the order of `ARRAYS`; nothing where the store itself keeps data and marks together.
    missing : tuple of Missing
        Scenes that it was made without.
    """

    row: str
    index: int
    block: tuple[int, int]
    key: str
    pieces: tuple[Piece, ...] = ()
    missing: tuple[Missing, ...] = ()

    @property
    def files(self) -> dict[str, Piece]:
        """Path of each shard relative to the store -> what was stored."""
        names = (shard_key(name, self.index, self.block) for name in ARRAYS)
        return dict(zip(names, self.pieces, strict=True))


class Entries:
    """What the ledger vouches for, as columns: a million shards are 110 MB, and 180 MB with etags.

    Parameters
    ----------
    table : Table
        The latest entry of each shard and date, without those withdrawn.
    doubtful : array of bool
        Entries older than a segment that cannot be read, which may have withdrawn them.
    """

    def __init__(self, table: pa.Table, doubtful: npt.NDArray[np.bool_]) -> None:
        self.table, self.doubtful = table, doubtful

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def column(self, name: str) -> npt.NDArray[Any]:
        """Values of a column."""
        values: npt.NDArray[Any] = self.table[name].to_numpy()
        return values

    def keep(self, chosen: npt.NDArray[np.bool_]) -> Entries:
        """Some of them."""
        if chosen.all():
            return self
        return Entries(self.table.filter(pa.array(chosen)), self.doubtful[chosen])

    def __iter__(self) -> Iterator[Mark]:
        """One by one, as marks."""
        for batch in self.table.to_batches(max_chunksize=4096):
            yield from map(_mark, batch.to_pylist())

    def keys(self) -> Iterator[tuple[str, tuple[int, int], str]]:
        """Row, shard and key of each."""
        for batch in self.table.select(["time", "y", "x", "key"]).to_batches(max_chunksize=65536):
            times, y, x, places = (column.to_pylist() for column in (*batch.columns[:3], batch.column(3).indices))
            labels, keys = {time: time.isoformat() for time in set(times)}, batch.column(3).dictionary.to_pylist()
            for time, *block, place in zip(times, y, x, places, strict=True):
                yield labels[time], (block[0], block[1]), keys[place]

    def complete(self, shards: int) -> dict[int, bytes]:
        """Place of each date that has so many shards -> a hash over their keys and checksums."""
        index = self.column("row")
        order = np.argsort(codes(index, self.column("y"), self.column("x")))
        rows, first, count = np.unique(index[order], return_index=True, return_counts=True)
        names = ("y", "x", "key", *(f"{name}_sha256" for name in ARRAYS))
        found = {}
        for row, start in zip(rows[count == shards].tolist(), first[count == shards].tolist(), strict=True):
            part = self.table.select(names).take(pa.array(order[start : start + shards]))
            columns = [part[name].to_pylist() for name in names]
            found[row] = hashlib.sha256(repr(columns).encode()).digest()
        return found


class Ledger:
    """Segments beside the data, each written after the shards that it vouches for.

    Parameters
    ----------
    objects : Objects
        The store.
    folder : str
        Where segments lie in it. Zarr readers never list it: it lies inside an array's folder.
    """

    def __init__(self, objects: Objects, folder: str) -> None:
        self._objects, self._folder = objects, folder
        self._next: int | None = None
        self._lock = threading.Lock()
        # A run asks several times before it begins; what was read stays true as long as no segment is added.
        self._known: tuple[list[Listed], Entries] | None = None

    def append(self, marks: Iterable[Mark], withdrawn: Iterable[tuple[str, int, tuple[int, int]]] = ()) -> None:
        """Vouch for shards that are stored, and withdraw (row, index, block) that are about to be written anew.

        Raises
        ------
        SegmentExistsError
            If somebody else appended since this ledger was last read; to be tried again if that may be.
        """
        table = _table(marks, withdrawn)
        if table.num_rows:
            with self._lock:
                self._append(table)

    def entries(self) -> Entries:
        """What is vouched for, and not withdrawn."""
        segments = self._segments()
        if self._known is None or self._known[0] != segments:
            self._known = segments, self._latest(*self._read())
        return self._known[1]

    @staticmethod
    def _latest(table: pa.Table, doubtful: npt.NDArray[np.bool_]) -> Entries:
        if not table.num_rows:
            return Entries(table, doubtful)
        # Ranks, since seconds would not fit into the code. Segments follow one another, and the sort keeps their order:
        # the last of each group is that of the highest segment.
        rank = np.unique(table["time"].to_numpy(), return_inverse=True)[1]
        code = codes(rank, table["y"].to_numpy(), table["x"].to_numpy())
        order = np.argsort(code, kind="stable")
        chosen = np.zeros(len(code), bool)
        chosen[order[np.append(code[order[1:]] != code[order[:-1]], True)]] = True
        chosen &= ~np.asarray(table["key"].is_null().to_numpy())
        return Entries(table, doubtful).keep(chosen)

    def join(self, *, many: int = _MANY) -> None:
        """Join segments into one, if they are many. A kill meanwhile leaves some that say nothing new.

        Raises
        ------
        SegmentExistsError
            If somebody else appended meanwhile.
        """
        numbers = self._numbers()
        if len(numbers) <= many:
            return
        self._next = None
        entries = self.entries()
        if entries.doubtful.any():
            return
        with self._lock:
            self._next = max(numbers) + 1
            self._append(entries.table.replace_schema_metadata({_WHOLE: b"1"}))
        delete_all(self._objects, map(self._key, numbers))

    def _append(self, table: pa.Table) -> None:
        self._known = None
        if self._next is None:
            self._next = max(self._numbers(), default=0) + 1
        out = io.BytesIO()
        pq.write_table(
            table, out, compression="zstd", write_statistics=False, store_schema=False, data_page_version="2.0"
        )
        try:
            self._objects.create(self._key(self._next), out.getvalue())
        except FileExistsError:
            self._next = None
            raise SegmentExistsError from None
        self._next += 1

    def _key(self, number: int) -> str:
        return f"{self._folder}/{number:010d}.parquet"

    def _segments(self) -> list[Listed]:
        """The segments, in order of their numbers."""
        found = [entry for entry in self._objects.list(self._folder) if _number(entry) is not None]
        return sorted(found, key=lambda entry: entry.key)

    def _numbers(self) -> list[int]:
        return [number for entry in self._segments() if (number := _number(entry)) is not None]

    def _read(self) -> tuple[pa.Table, npt.NDArray[np.bool_]]:
        """All segments one after the other, and which entries are doubtful."""
        while True:
            numbers = self._numbers()
            try:
                with ThreadPoolExecutor(_READERS) as pool:
                    read = list(pool.map(self._segment, numbers))
            except FileNotFoundError:
                continue  # they were joined meanwhile
            break
        first = max((i for i, table in enumerate(read) if table and _WHOLE in (table.schema.metadata or {})), default=0)
        damaged = max((i for i, table in enumerate(read) if table is None), default=-1)
        kept = [(table, i < damaged) for i, table in enumerate(read) if i >= first and table is not None]
        if not kept:
            return _READ.empty_table(), np.zeros(0, bool)
        doubtful = np.repeat([doubt for _, doubt in kept], [len(table) for table, _ in kept])
        whole = pa.concat_tables([table.replace_schema_metadata(None) for table, _ in kept])
        return whole.unify_dictionaries(), doubtful

    def _segment(self, number: int) -> pa.Table | None:
        """A segment; None if it is damaged."""
        data = self._objects.get(self._key(number))
        try:
            table = pq.read_table(pa.BufferReader(data), use_threads=False, read_dictionary=list(_REPEATED))
            return table.cast(_READ.with_metadata(table.schema.metadata))
        except (pa.ArrowException, ValueError, OSError):
            return None


def _number(segment: Listed) -> int | None:
    name = segment.key.rpartition("/")[2]
    return int(name[:-8]) if name.endswith(".parquet") and name[:-8].isdigit() else None


def shard_key(name: str, index: int, block: tuple[int, int]) -> str:
    """Path of a shard relative to the store."""
    return f"{name}/c/{index}/{block[0]}/{block[1]}"


def checksum(data: bytes) -> str:
    """SHA-256 (hex)."""
    return hashlib.sha256(data).hexdigest()


def _table(marks: Iterable[Mark], withdrawn: Iterable[tuple[str, int, tuple[int, int]]]) -> pa.Table:
    entries: list[Mapping[str, Any]] = [
        {
            **_place(mark.row, mark.index, mark.block),
            "key": mark.key,
            "missing": json.dumps([asdict(each) for each in mark.missing]) if mark.missing else None,
            **{
                f"{name}_{part}": value
                for name, piece in zip(ARRAYS, mark.pieces, strict=True)
                for part, value in (
                    ("size", piece.size),
                    ("sha256", bytes.fromhex(piece.sha256)),
                    ("etag", piece.etag or None),
                )
            },
        }
        for mark in marks
    ]
    entries += [_place(*place) for place in withdrawn]
    columns: Sequence[Any] = [pa.array([entry.get(f.name) for entry in entries], f.type) for f in _SCHEMA]
    return pa.Table.from_arrays(columns, schema=_SCHEMA)


def _place(row: str, index: int, block: tuple[int, int]) -> dict[str, Any]:
    return {"time": np.datetime64(row, "s"), "row": index, "y": block[0], "x": block[1]}


def _mark(entry: Mapping[str, Any]) -> Mark:
    pieces = (
        Piece(entry[f"{name}_size"], entry[f"{name}_sha256"].hex(), entry[f"{name}_etag"] or "") for name in ARRAYS
    )
    missing = tuple(Missing(**each) for each in json.loads(entry["missing"] or "[]"))
    return Mark(entry["time"].isoformat(), entry["row"], (entry["y"], entry["x"]), entry["key"], tuple(pieces), missing)
