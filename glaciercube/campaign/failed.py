"""Shards that could not be made, with their reasons: kept among the store's records until they are made."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import pandas as pd

from glaciercube.errors import StoreError
from glaciercube.store import Records, StoreOptions, open_records

if TYPE_CHECKING:
    from glaciercube.campaign.left import Left
    from glaciercube.campaign.plan import Plan, Unit

__all__ = ["FAILED_COLUMNS", "Failed", "Failures", "failed_shards", "known_failures"]

_PREFIX: Final = "failed-"
# Seconds between two writings of the list while a run goes on, and by how much it must have grown.
_EVERY: Final = 30.0
_GROWN: Final = 1.5


@dataclass(frozen=True)
class Failed:
    """A shard of one date that could not be made.

    Attributes
    ----------
    row : str
        Label of the date.
    block : (int, int)
        Row and column of the shard.
    kind : str
        Kind of the error; see `glaciercube.errors`.
    failure : str
        Of a read: ``transient``, ``authorisation`` or ``permanent``.
    scene, band, uri : str
        What could not be read, where that is known.
    reason : str
        The problem, without secrets.
    run, when : str
        By which run, and when (UTC, ISO 8601).
    """

    row: str
    block: tuple[int, int]
    kind: str
    failure: str
    scene: str
    band: str
    uri: str
    reason: str
    run: str
    when: str


_TEXTS: Final = tuple(field.name for field in fields(Failed) if field.name not in ("row", "block"))
FAILED_COLUMNS: Final = ("time", "block_y", "block_x", *_TEXTS)


class Failures:
    """What failed, of this run and of those before.

    Parameters
    ----------
    records : Records
        Of the store.
    run : str
        Name of this run.
    """

    def __init__(self, records: Records, run: str) -> None:
        self._records, self._run, self._lock = records, run, threading.Lock()
        self._files, self._known = _load(records)
        self._saved, self._size, self._changed = time.monotonic(), len(self._known), False

    def __iter__(self) -> Iterator[Failed]:
        return iter(list(self._known.values()))

    def __len__(self) -> int:
        return len(self._known)

    def missed(self, unit: Unit, labels: Sequence[str], error: BaseException) -> None:
        """Note that some dates of a shard could not be made."""
        told = {name: str(getattr(error, name, "")) for name in ("kind", "failure", "scene", "band", "uri")}
        reason = str(getattr(error, "problem", "") or error or type(error).__name__)
        when = datetime.now(UTC).isoformat(timespec="seconds")
        with self._lock:
            for label in labels:
                self._known[label, unit.block] = Failed(
                    label, unit.block, **told, reason=reason, run=self._run, when=when
                )
            self._changed = True
            due = time.monotonic() - self._saved > _EVERY and len(self._known) > _GROWN * self._size
        if due:
            # A list that cannot be kept now is no reason to stop: it is written at the end, too.
            with suppress(StoreError):
                self.save()

    def made(self, unit: Unit, labels: Sequence[str]) -> None:
        """Note that dates of a shard were made."""
        with self._lock:
            for label in labels if self._known else ():
                self._changed |= self._known.pop((label, unit.block), None) is not None

    def settle(self, plan: Plan, left: Left) -> None:
        """Forget what is done: a run that was killed could not say so."""
        numbers = {label: row for row, label in enumerate(plan.labels)}
        for label, block in list(self._known):
            row, number = numbers.get(label), plan.blocks.number(block)
            if row is not None and number is not None and left.finished[number, row]:
                self._changed |= self._known.pop((label, block), None) is not None

    def save(self) -> None:
        """Write the list in place of the older ones.

        Raises
        ------
        StoreError
            If the disk or server does not take it.
        """
        with self._lock:
            if not self._changed and len(self._files) <= 1:
                return
            name = f"{_PREFIX}{self._run}.parquet"
            if self._known:
                self._records.put(name, _packed(list(self._known.values())))
            for other in self._files:
                if other != name or not self._known:
                    self._records.delete(other)
            self._files = [name] if self._known else []
            self._saved, self._size, self._changed = time.monotonic(), len(self._known), False


def known_failures(store: StoreOptions) -> list[Failed]:
    """What failed before, as a store remembers it."""
    return list(_load(open_records(store))[1].values())


def failed_shards(store: StoreOptions | str) -> pd.DataFrame:
    """The shards of a store that could not be made in the last run that tried.

    Parameters
    ----------
    store : StoreOptions or str
        The store, or its path.

    Returns
    -------
    DataFrame
        A row per shard and date: ``time``, ``block_y`` and ``block_x``, ``kind`` (of the error), ``failure``
        (of a read: ``transient``, ``authorisation`` or ``permanent``), ``scene``, ``band``, ``uri``, ``reason``,
        ``run`` and ``when`` (UTC).

    Raises
    ------
    StoreError
        If it cannot be read.
    """
    known = known_failures(StoreOptions(store) if isinstance(store, str) else store)
    rows = [(pd.Timestamp(one.row), *one.block, *(getattr(one, name) for name in _TEXTS)) for one in known]
    frame = pd.DataFrame(rows, columns=list(FAILED_COLUMNS)).astype({"time": "datetime64[s]"})
    return frame.sort_values(list(FAILED_COLUMNS[:3]), ignore_index=True)


def _load(records: Records) -> tuple[list[str], dict[tuple[str, tuple[int, int]], Failed]]:
    files = [name for name in records.names() if name.startswith(_PREFIX)]
    known: dict[tuple[str, tuple[int, int]], Failed] = {}
    for name in files:
        data = records.get(name)
        if data is None:
            continue
        with suppress(ValueError, OSError, KeyError):
            for row in pd.read_parquet(io.BytesIO(data)).to_dict("records"):
                place = (int(row["block_y"]), int(row["block_x"]))
                one = Failed(str(row["row"]), place, **{text: str(row[text]) for text in _TEXTS})
                before = known.get((one.row, place))
                if before is None or before.when <= one.when:
                    known[one.row, place] = one
    return files, known


def _packed(failed: Sequence[Failed]) -> bytes:
    frame = pd.DataFrame([asdict(one) for one in failed])
    frame["block_y"], frame["block_x"] = ([block[axis] for block in frame["block"]] for axis in (0, 1))
    out = io.BytesIO()
    frame.drop(columns="block").to_parquet(out, index=False, compression="zstd")
    return out.getvalue()
