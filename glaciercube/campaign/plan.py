"""Phase one: everything that is decided before a pixel is read, and the units of work that follow from it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias, overload

import numpy as np
import numpy.typing as npt
import pandas as pd

from glaciercube.campaign.candidates import MARGIN as GROUND_MARGIN
from glaciercube.campaign.candidates import PlanOptions, Sight
from glaciercube.campaign.keeping import Kept, keep_companions
from glaciercube.campaign.keys import digest, make_key, skipped
from glaciercube.campaign.unit import LeanScenes, nanoseconds
from glaciercube.campaign.worth import worth_computing
from glaciercube.catalog import Scenes
from glaciercube.cube import ComposeOptions, LoadOptions, Row, schedule
from glaciercube.cube.coverage import coverage
from glaciercube.cube.native import self_contained
from glaciercube.cube.passes import Pass, passes_of_scenes
from glaciercube.cube.radar import averaged_times
from glaciercube.errors import PlanError
from glaciercube.inference import KERNEL_VERSION
from glaciercube.region import Region
from glaciercube.sensors import SENSORS
from glaciercube.store import StoreOptions, row_label
from glaciercube.store.layout import grid_attributes

if TYPE_CHECKING:
    from glaciercube.models.base import Model

__all__ = ["Blocks", "Plan", "Unit", "decisions_of", "make_plan"]

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
        return next(iter(_axes(self.scenes)), "")


def make_plan(
    region: Region,
    scenes: Scenes,
    model: Model,
    store: StoreOptions,
    *,
    load: LoadOptions | None = None,
    compose: ComposeOptions | None = None,
    options: PlanOptions | None = None,
    made_of: Mapping[str, Sequence[str]] | None = None,
    request: Mapping[str, Any] | None = None,
) -> Plan:
    """Decide a job.

    Parameters
    ----------
    region : Region
        Where.
    scenes : Scenes
        From `glaciercube.catalog.find`.
    model : Model
        From `glaciercube.models.load_model`.
    store : StoreOptions
        Where to, in which layout.
    load, compose
        Options of `glaciercube.cube.load` and `glaciercube.cube.compose`.
    options : PlanOptions or None
        Which shards are computed.
    made_of : mapping or None
        Row label -> identifiers of the scenes that a store made it of. Such a row keeps its companions as long as its
        own scenes are the same (`glaciercube.campaign.keeping`).
    request : mapping or None
        What was searched for; see `Plan`.

    Raises
    ------
    PlanError
        If two rows would have the same time.
    CubeError
        If there is nothing to compose.
    """
    load, compose = load or LoadOptions(), compose or ComposeOptions()
    rows = _rows(scenes, region, compose)
    kept = Kept(rows, _picked(scenes, rows, _averaged(scenes, load)))
    if made_of:
        kept = keep_companions(scenes, kept, made_of, lambda some: _rows(some, region, compose))
    plan = Plan(
        region,
        scenes,
        kept.rows,
        model,
        load,
        compose,
        store,
        keys=_keys(decisions_of(region, model, load, compose), scenes, kept.picked, compose),
        picked=kept.picked,
        options=options or PlanOptions(),
        alone=kept.alone,
        request=request,
    )
    if len(set(plan.labels)) < len(plan.labels):
        labels = plan.labels
        twice = next(label for label in labels if labels.count(label) > 1)
        raise PlanError(f"two observations share the time {twice}", "leave one of their collections out")
    return plan


def decisions_of(region: Region, model: Model, load: LoadOptions, compose: ComposeOptions) -> dict[str, str]:
    """Hashes of what decides the pixels of all rows, beside their scenes; see `glaciercube.campaign.keys`."""
    composing = asdict(compose)
    found = {
        "grid": grid_attributes(region.geobox),
        # How patient reads are decides no pixel, nor does the backend.
        "load": {name: value for name, value in asdict(load).items() if name not in ("read", "backend")},
        "mask": composing.pop("mask"),
        "compose": composing,
        "model": model.hash,
        "kernel": KERNEL_VERSION,
    }
    return {name: digest(value) for name, value in found.items()}


def _rows(scenes: Scenes, region: Region, compose: ComposeOptions) -> tuple[Row, ...]:
    axes = _axes(scenes)
    if not axes:
        return (_static_row(scenes),)
    return tuple(schedule(axes, compose, _coverage(scenes, region), _passes(scenes)))


def _axes(scenes: Scenes) -> dict[str, np.ndarray[Any, np.dtype[np.datetime64]]]:
    """Acquisition times by node, the leading sensor first."""
    axes = {}
    # Layers of the user's own come last, by name.
    for name in (*(name for name in SENSORS if name in scenes.sensors), *sorted(set(scenes.sensors) - set(SENSORS))):
        sensor = scenes.sensor(name)
        if not sensor.static:
            times = pd.DatetimeIndex(scenes.of(name).table["time"].unique()).sort_values()
            axes[sensor.node] = times.to_numpy()
    return axes


def _coverage(scenes: Scenes, region: Region) -> dict[str, np.ndarray[Any, np.dtype[np.floating[Any]]]]:
    """Shares of the region by node, as `compose` finds them beside the pixels."""
    found = {scenes.sensor(name): coverage(scenes.of(name), region.geobox) for name in scenes.sensors}
    return {sensor.node: shares.to_numpy("float64") for sensor, shares in found.items() if not sensor.static}


def _passes(scenes: Scenes) -> dict[str, tuple[Pass, ...]]:
    """What radar acquisitions are comparable by, as `compose` finds it beside the pixels."""
    radar = "sentinel-1"
    return {"sentinel1": passes_of_scenes(scenes.of(radar))} if radar in scenes.sensors else {}


def _static_row(scenes: Scenes) -> Row:
    return Row(scenes.table["time"].max().to_datetime64(), None, {})


def _averaged(scenes: Scenes, load: LoadOptions) -> dict[int, Indices]:
    """Radar observations -> those that multilooking in time averages each with."""
    radar = "sentinel-1"
    if radar not in scenes.sensors:
        return {}
    found = averaged_times(scenes.of(radar), load.radar)
    return {int(nanoseconds(np.array(time))): nanoseconds(np.array(others)) for time, others in found.items()}


def _picked(scenes: Scenes, rows: tuple[Row, ...], averaged: Mapping[int, Indices]) -> tuple[Indices, ...]:
    """Places in the table of the scenes that make each row, ascending."""
    table = scenes.table
    known = {name: scenes.sensor(name) for name in scenes.sensors}
    at: dict[tuple[str, int], list[int]] = {}
    still = []
    for place, (name, time) in enumerate(zip(table["sensor"], nanoseconds(table["time"].to_numpy()), strict=True)):
        if known[name].static:
            still.append(place)
        else:
            at.setdefault((known[name].node, int(time)), []).append(place)
    found = []
    for row in rows:
        places = list(still)
        for node, times in row.members.items():
            own = nanoseconds(np.array(times))
            if node == "sentinel1":
                own = np.unique(np.concatenate([averaged.get(time, np.array([time])) for time in own.tolist()]))
            for time in own.tolist():
                places += at.get((node, time), ())
        found.append(np.unique(np.array(places, np.int64)))
    return tuple(found)


def _keys(
    decided: Mapping[str, str], scenes: Scenes, picked: tuple[Indices, ...], compose: ComposeOptions
) -> tuple[str, ...]:
    """Per row hashes over what was decided and what decides the pixels of its scenes."""
    texts = list(scenes.decisive())
    shared = []
    if compose.mask.recover_ice == "persistent":
        # Each row's mask then depends on all dates.
        shared = [scenes.of("sentinel-2").fingerprint.encode()]
    return tuple(make_key(decided, [*(texts[place] for place in places), *shared]) for places in picked)


def _ground_parted(tiles: Scenes, region: Region) -> bool:
    assets = [bands["elevation"].asset for bands in tiles.bands()]
    return self_contained(tiles.items(), assets, region.search_boxes(GROUND_MARGIN))
