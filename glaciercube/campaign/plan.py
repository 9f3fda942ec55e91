"""A job, fully decided before a pixel is read, and the units of work that follow from it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias, overload

import numpy as np
import numpy.typing as npt
import pandas as pd

from glaciercube.campaign.candidates import MARGIN as GROUND_MARGIN
from glaciercube.campaign.candidates import PlanOptions, Sight
from glaciercube.campaign.keys import skipped
from glaciercube.campaign.unit import LeanScenes
from glaciercube.campaign.worth import worth_computing
from glaciercube.catalog import Scenes
from glaciercube.cube import ComposeOptions, LoadOptions, Row
from glaciercube.cube.native import self_contained
from glaciercube.region import Region
from glaciercube.sensors import SENSORS
from glaciercube.store import StoreOptions, row_label

if TYPE_CHECKING:
    from glaciercube.models.base import Model

__all__ = ["Blocks", "Plan", "Unit", "axes_of", "contexts_of", "days_of"]

Times: TypeAlias = npt.NDArray[np.datetime64]
Indices: TypeAlias = npt.NDArray[np.int64]
Bool: TypeAlias = npt.NDArray[np.bool_]

# Rows of one unit: its static branch is computed once for all of them, and a kill loses at most their reads.
ROWS_PER_UNIT = 16
# Rows that one unit says of that they hold nothing.
_SKIPPED_PER_UNIT = 256


@dataclass(frozen=True)
class Unit:
    """What one task does: one shard, several rows.

    Attributes
    ----------
    block : (int, int)
        Row and column of the shard.
    rows : tuple of int
        Indices into the plan's rows.
    skip : bool
        True if there is nothing to compute: it is NaN, with the flag ``not_candidate``.
    """

    block: tuple[int, int]
    rows: tuple[int, ...]
    skip: bool = False


class Blocks(Sequence[tuple[int, int]]):
    """Row and column of every shard of a grid, row by row; a million of them take no room.

    Parameters
    ----------
    high, wide : int
        Shards down and across.
    """

    def __init__(self, high: int, wide: int) -> None:
        self.high, self.wide = high, wide

    def __len__(self) -> int:
        return self.high * self.wide

    @overload
    def __getitem__(self, index: int) -> tuple[int, int]: ...
    @overload
    def __getitem__(self, index: slice) -> list[tuple[int, int]]: ...
    def __getitem__(self, index: int | slice) -> tuple[int, int] | list[tuple[int, int]]:
        chosen = range(len(self))[index]
        return divmod(chosen, self.wide) if isinstance(chosen, int) else [divmod(i, self.wide) for i in chosen]

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((y, x) for y in range(self.high) for x in range(self.wide))

    def number(self, block: tuple[int, int]) -> int | None:
        """Place of a shard among them; None if the grid has no such shard."""
        inside = 0 <= block[0] < self.high and 0 <= block[1] < self.wide
        return block[0] * self.wide + block[1] if inside else None


@dataclass(frozen=True, eq=False, repr=False)
class Plan:
    """A job, fully decided.

    Attributes
    ----------
    region : Region
        Where.
    scenes : Scenes
        From what; frozen, no unit asks a catalogue again.
    rows : tuple of Row
        The time axis.
    model : Model
        With what.
    load, compose, store
        The options of those rooms.
    keys : tuple of str
        Per row, hashes of everything that decides its pixels (`glaciercube.campaign.keys`).
    picked : tuple of array of int
        Per row, the scenes that it is made of, as places in the table of scenes.
    options : PlanOptions
        Which shards are computed.
    alone : frozenset of int
        Rows that keep what a store made them of, beside newer scenes; no unit has others beside one of these.
    request : mapping or None
        What was searched for, as plain values; a run keeps it with the scenes, so that the next need not search.
    """

    region: Region
    scenes: Scenes
    rows: tuple[Row, ...]
    model: Model
    load: LoadOptions
    compose: ComposeOptions
    store: StoreOptions
    keys: tuple[str, ...]
    picked: tuple[Indices, ...]
    options: PlanOptions = field(default_factory=PlanOptions)
    alone: frozenset[int] = frozenset()
    request: Mapping[str, Any] | None = None

    def __repr__(self) -> str:
        return (
            f"Plan({self.region.name}: {len(self.rows)} dates of {len(self.scenes)} scenes, {len(self.blocks)} shards, "
            f"{self.model.contract.name} -> {self.store.path})"
        )

    @property
    def times(self) -> np.ndarray[Any, np.dtype[np.datetime64]]:
        """The time axis, datetime64[s]."""
        return np.array([row.time for row in self.rows]).astype("datetime64[s]")

    @property
    def labels(self) -> list[str]:
        """The rows' names in the ledger."""
        return [row_label(time) for time in self.times]

    @property
    def blocks(self) -> Blocks:
        """Row and column of every shard of the grid."""
        high, wide = (-(-size // self.store.block) for size in self.region.geobox.shape)
        return Blocks(high, wide)

    @cached_property
    def scene_ids(self) -> tuple[tuple[str, ...], ...]:
        """Per row, the identifiers of the scenes that it is made of."""
        ids = self.scenes.table["id"].to_numpy(dtype=object)
        return tuple(tuple(ids[part]) for part in self.picked)

    def slices(self, block: tuple[int, int]) -> tuple[slice, slice]:
        """Pixels of a shard on the grid."""
        return self.store.slices(block, (self.region.geobox.shape[0], self.region.geobox.shape[1]))

    def units(self, done: Iterable[tuple[str, tuple[int, int], str]] = ()) -> Iterator[Unit]:
        """The work that is left, lazily.

        Parameters
        ----------
        done : iterable of (row label, block, key)
            What the ledger holds; a row whose key has changed is done again.
        """
        return self.units_left(~self._finished(done))

    def units_left(self, left: Bool) -> Iterator[Unit]:
        """Units of some shards, lazily.

        Parameters
        ----------
        left : (block, row) bool
            Which shards.
        """
        blocks, work = self.blocks, self.work
        alone = np.isin(np.arange(len(self.rows)), list(self.alone))
        for number, block in enumerate(blocks):
            if not left[number].any():
                continue
            for skip, step in ((False, ROWS_PER_UNIT), (True, _SKIPPED_PER_UNIT)):
                some = left[number] & (work[number] != skip)
                rows = np.flatnonzero(some & ~alone).tolist()
                for start in range(0, len(rows), step):
                    yield Unit(block, tuple(rows[start : start + step]), skip)
                yield from (Unit(block, (row,), skip) for row in np.flatnonzero(some & alone).tolist())

    @cached_property
    def days(self) -> list[float]:
        """The time axis, in days from any day."""
        return days_of(self.rows)

    @cached_property
    def contexts(self) -> tuple[tuple[int, ...], ...]:
        """Per row, the rows that it is made of; see `contexts_of`."""
        return contexts_of(self.rows, self.model)

    def reads(self, rows: tuple[int, ...]) -> tuple[int, ...]:
        """Rows that are read for some rows, themselves among them, in order."""
        return tuple(sorted({other for row in rows for other in self.contexts[row]}))

    def unit_keys(self, unit: Unit) -> list[str]:
        """What is to be recorded with a unit's shards, per row."""
        return [skipped(self.keys[row]) if unit.skip else self.keys[row] for row in unit.rows]

    def _finished(self, done: Iterable[tuple[str, tuple[int, int], str]]) -> Bool:
        """Which shards are done: (block, row)."""
        blocks, work = self.blocks, self.work
        rows = {label: row for row, label in enumerate(self.labels)}
        nothing = [skipped(key) for key in self.keys]
        finished = np.zeros((len(blocks), len(rows)), np.bool_)
        for label, block, key in done:
            row, number = rows.get(label), blocks.number(block)
            if row is not None and number is not None:
                finished[number, row] = key == self.keys[row] or (key == nothing[row] and not work[number, row])
        return finished

    @cached_property
    def sight(self) -> Sight:
        """The scenes' footprints on the map."""
        return Sight(self.scenes.table.geometry.to_numpy(), self.region)

    @cached_property
    def work(self) -> Bool:
        """Which shards are computed: (block, row); the others cannot hold anything, see `PlanOptions`."""
        return worth_computing(self)

    @cached_property
    def kinds(self) -> Indices:
        """A scene of every sensor and of every set of bands that its scenes have."""
        table = self.scenes.table
        names = [",".join(json.loads(bands)) for bands in table["bands"]]
        alike = [f"{sensor} {found}" for sensor, found in zip(table["sensor"], names, strict=True)]
        return np.unique(alike, return_index=True)[1]

    @cached_property
    def ground_ids(self) -> frozenset[str]:
        """Identifiers of the scenes that all dates share."""
        table, sensors = self.scenes.table, self.scenes.sensors
        still = {name for name in sensors if self.scenes.sensor(name).static}
        return frozenset(table["id"][table["sensor"].isin(still)])

    @cached_property
    def lean(self) -> LeanScenes:
        """Scenes of units, with what reading needs."""
        return LeanScenes(self.scenes)

    @cached_property
    def ground_parted(self) -> bool:
        """Whether a unit needs only those tiles of the ground that it meets."""
        return "dem" in self.scenes.sensors and _ground_parted(self.scenes.of("dem"), self.region)

    @property
    def leading(self) -> str:
        """Node of the sensor whose acquisitions make the time axis; empty with terrain alone."""
        return next(iter(axes_of(self.scenes)), "")


def contexts_of(rows: Sequence[Row], model: Model) -> tuple[tuple[int, ...], ...]:
    """Per row, the rows that it is made of: itself, and those that the model looks at beside it, ascending."""
    context = model.contract.time_context
    if context is None:
        return tuple((row,) for row in range(len(rows)))
    days = days_of(rows)
    return tuple(tuple(context.union(days, [row])) for row in range(len(rows)))


def days_of(rows: Sequence[Row]) -> list[float]:
    """Times of rows, in days from any day."""
    times = np.array([row.time for row in rows]).astype("datetime64[s]")
    return [float(seconds) / 86400.0 for seconds in times.astype(np.int64)]


def axes_of(scenes: Scenes) -> dict[str, np.ndarray[Any, np.dtype[np.datetime64]]]:
    """Acquisition times by node, the leading sensor first."""
    axes = {}
    # Layers of the user's own come last, by name.
    for name in (*(name for name in SENSORS if name in scenes.sensors), *sorted(set(scenes.sensors) - set(SENSORS))):
        sensor = scenes.sensor(name)
        if not sensor.static:
            times = pd.DatetimeIndex(scenes.of(name).table["time"].unique()).sort_values()
            axes[sensor.node] = times.to_numpy()
    return axes


def _ground_parted(tiles: Scenes, region: Region) -> bool:
    assets = [bands["elevation"].asset for bands in tiles.bands()]
    return self_contained(tiles.items(), assets, region.search_boxes(GROUND_MARGIN))
