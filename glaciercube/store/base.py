"""What every kind of store offers: a handle that workers write with, and a driver that alone says what is done."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Protocol, Self, TypeAlias

import numpy as np
import numpy.typing as npt
from odc.geo.geobox import GeoBox

from glaciercube.errors import StoreError
from glaciercube.store.layout import StoreOptions
from glaciercube.store.ledger import Mark
from glaciercube.store.missing import Missing

__all__ = ["Check", "Done", "Handle", "Store", "Written", "row_label"]

# How a shard is held against what was recorded of it; see `Store.done`.
Check: TypeAlias = Literal["none", "size", "sha256"]


@dataclass(frozen=True)
class Written:
    """What a worker wrote, on its way to the driver; can be pickled.

    Attributes
    ----------
    marks : tuple of Mark
        One per date.
    fork : object
        Icechunk's uncommitted changes; None elsewhere.
    epoch : int
        How often the store had changed hands when the worker's handle was made.
    """

    marks: tuple[Mark, ...]
    fork: Any = None
    epoch: int = 0


class Done(Protocol):
    """What a store holds: row, shard and key of each shard that counts as done."""

    def __iter__(self) -> Iterator[tuple[str, tuple[int, int], str]]:
        """One by one."""

    def __len__(self) -> int:
        """How many."""


@dataclass(frozen=True)
class Handle(ABC):
    """Writes shards from any process or thread; can be pickled. What it wrote is not done until it is committed.

    Attributes
    ----------
    options : StoreOptions
        Layout and path.
    geobox : GeoBox
        The grid.
    rows : mapping
        Label of each row -> its place.
    """

    options: StoreOptions
    geobox: GeoBox
    rows: Mapping[str, int]

    def write(
        self,
        times: npt.NDArray[np.datetime64],
        block: tuple[int, int],
        probability: npt.NDArray[np.float32],
        quality: npt.NDArray[np.uint8],
        keys: Sequence[str],
        missing: Sequence[Sequence[Missing]] = (),
    ) -> Written:
        """Write one shard of several dates.

        Parameters
        ----------
        times : (time) datetime64
            Rows; they must have been there when the handle was made.
        block : (int, int)
            Row and column of the shard.
        probability : (time, y, x) float
            0 to 1, NaN where missing; exactly the shard's pixels.
        quality : (time, y, x) uint8
            Flags.
        keys : sequence of str
            What decided the pixels, per row; at most 64 bytes each.
        missing : sequence of sequence of Missing
            Scenes that the shard was made without, per row; none by default.

        Raises
        ------
        StoreError
            If the data is not exactly the shard's, the rows are unknown, somebody else has taken the store over, or
            the disk or server does not take it.
        """
        places = self.places(times, block, probability, quality, keys)
        marks = tuple(
            Mark(label, index, block, key, (), tuple(missing[i]) if missing else ())
            for i, ((label, index), key) in enumerate(zip(places, keys, strict=True))
        )
        return self._write(marks, probability, quality)

    def places(
        self,
        times: npt.NDArray[np.datetime64],
        block: tuple[int, int],
        probability: npt.NDArray[Any],
        quality: npt.NDArray[Any],
        keys: Sequence[str],
    ) -> list[tuple[str, int]]:
        """Labels and places of the rows, if the data are exactly one whole shard of each.

        Parameters
        ----------
        times, block, probability, quality, keys
            As of `write`.

        Raises
        ------
        StoreError
            If they are not.
        """
        _check_pixels(self.options, self.geobox, block, (len(times), probability, quality))
        labels = [row_label(time) for time in times]
        unknown = [label for label in labels if label not in self.rows]
        twice = len(set(labels)) < len(labels)
        if unknown or twice or len(keys) != len(labels) or max(map(_length, keys), default=0) > 64:
            what = f"has no row {unknown[0]}" if unknown else "was given rows twice, or keys that are not theirs"
            raise StoreError(
                f"{self.options.path} {what}", "open the store with all rows, and give each once with its key"
            )
        return [(label, self.rows[label]) for label in labels]

    @abstractmethod
    def _write(
        self, marks: tuple[Mark, ...], probability: npt.NDArray[np.float32], quality: npt.NDArray[np.uint8]
    ) -> Written:
        """Write (time, y, x) pixels, one date to a mark; packed date by date, for the sake of memory."""


class Store(ABC):
    """A probability cube that one driver writes to, by itself and by its workers.

    Attributes
    ----------
    options : StoreOptions
        Layout and path.
    geobox : GeoBox
        The grid.
    """

    options: StoreOptions
    geobox: GeoBox

    @abstractmethod
    def prepare(self, shards: Iterable[tuple[str, tuple[int, int]]]) -> None:
        """Withdraw what is said of shards (row, block) that are about to be written anew; before any is written."""

    @abstractmethod
    def handle(self) -> Handle:
        """What workers write with."""

    @abstractmethod
    def commit(self, written: Iterable[Written]) -> None:
        """Say that these are done; in one step for all of them."""

    def write(
        self,
        times: npt.NDArray[np.datetime64],
        block: tuple[int, int],
        probability: npt.NDArray[np.float32],
        quality: npt.NDArray[np.uint8],
        keys: Sequence[str],
        missing: Sequence[Sequence[Missing]] = (),
    ) -> None:
        """Prepare, write and commit one shard of several dates, from this process; see `Handle.write`."""
        handle = self.handle()
        # What is refused must not be withdrawn before.
        places = handle.places(times, block, probability, quality, keys)
        self.prepare((label, block) for label, _ in places)
        self.commit([handle.write(times, block, probability, quality, keys, missing)])

    @abstractmethod
    def done(self, check: Check = "size", *, lacking: bool = True) -> Done:
        """What is done, and still there.

        Parameters
        ----------
        check : {"none", "size", "sha256"}
            ``none`` believes the ledger. ``size`` lists the shards: it notices what is gone, cut short or, on object
            stores, replaced; on disk it does not notice bytes that changed within a file of the same length.
            ``sha256`` reads everything and notices that too. Icechunk refuses bytes that are not its own by itself.
        lacking : bool
            False if shards that were made without some scenes do not count.
        """

    @abstractmethod
    def describe(self, provenance: Mapping[str, Any], source: str) -> None:
        """Say how the planned rows were made; refused if that is not how others were."""

    @abstractmethod
    def build_levels(self) -> list[str]:
        """Build the coarser levels of rows that are complete and have none; which rows."""

    @abstractmethod
    def close(self) -> None:
        """Give the lease back; may be called again."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def row_label(time: np.datetime64) -> str:
    """A row's time as ISO 8601, to the second."""
    return str(np.asarray(time).astype("datetime64[s]"))


def _check_pixels(
    options: StoreOptions, geobox: GeoBox, block: tuple[int, int], given: tuple[int, npt.NDArray[Any], npt.NDArray[Any]]
) -> None:
    y, x = options.slices(block, (geobox.shape[0], geobox.shape[1]))
    if min(block) < 0 or y.stop <= y.start or x.stop <= x.start:
        raise StoreError(f"{options.path} has no shard {block}", "count the shards from (0, 0), as the plan does")
    dates, probability, quality = given
    shape = (dates, y.stop - y.start, x.stop - x.start)
    if probability.shape != shape or quality.shape != shape:
        raise StoreError(
            f"shard {block} of {options.path} takes {shape} pixels and was given {probability.shape}"
            + ("" if quality.shape == probability.shape else f" and quality of {quality.shape}"),
            "write whole shards: two writers of one shard would lose each other's pixels",
        )
    if probability.dtype.kind != "f" or quality.dtype != np.uint8:
        raise StoreError(
            f"shard {block} of {options.path} was given {probability.dtype} and {quality.dtype}",
            "give probability as floating point, and quality as uint8",
        )


def _length(key: str) -> int:
    return len(key.encode())
