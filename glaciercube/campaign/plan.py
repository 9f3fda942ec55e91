"""Phase one: everything that is decided before a pixel is read, and the units of work that follow from it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd

from glaciercube.catalog import Scenes
from glaciercube.cube import ComposeOptions, LoadOptions, Row, schedule
from glaciercube.cube.coverage import coverage
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

__all__ = ["Plan", "Unit", "make_plan"]

_Averaged: TypeAlias = Mapping[np.datetime64, tuple[np.datetime64, ...]]

# Rows of one unit: its static branch is computed once for all of them, and a kill loses at most their reads.
ROWS_PER_UNIT = 16


@dataclass(frozen=True)
class Unit:
    """What one task does: one shard, several rows.

    Attributes
    ----------
    block : (int, int)
        Row and column of the shard.
    rows : tuple of int
        Indices into the plan's rows.
    """

    block: tuple[int, int]
    rows: tuple[int, ...]


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
        Per row, a hash over everything that decides its pixels.
    scene_ids : tuple of tuple of str
        Per row, the scenes that it is made of.
    """

    region: Region
    scenes: Scenes
    rows: tuple[Row, ...]
    model: Model
    load: LoadOptions
    compose: ComposeOptions
    store: StoreOptions
    keys: tuple[str, ...]
    scene_ids: tuple[tuple[str, ...], ...]

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
    def blocks(self) -> list[tuple[int, int]]:
        """Row and column of every shard of the grid."""
        side = self.store.block
        high, wide = (-(-size // side) for size in self.region.geobox.shape)
        return [(y, x) for y in range(high) for x in range(wide)]

    def slices(self, block: tuple[int, int]) -> tuple[slice, slice]:
        """Pixels of a shard on the grid."""
        return self.store.slices(block, (self.region.geobox.shape[0], self.region.geobox.shape[1]))

    def units(self, done: Iterable[tuple[str, tuple[int, int], str]] = ()) -> Iterator[Unit]:
        """The work that is left.

        Parameters
        ----------
        done : iterable of (row label, block, key)
            What the ledger holds; a row whose key has changed is done again.
        """
        finished = set(done)
        for block in self.blocks:
            rows = [
                index
                for index, (label, key) in enumerate(zip(self.labels, self.keys, strict=True))
                if (label, block, key) not in finished
            ]
            for start in range(0, len(rows), ROWS_PER_UNIT):
                yield Unit(block, tuple(rows[start : start + ROWS_PER_UNIT]))

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

    Raises
    ------
    PlanError
        If two rows would have the same time.
    CubeError
        If there is nothing to compose.
    """
    load, compose = load or LoadOptions(), compose or ComposeOptions()
    axes = _axes(scenes)
    rows = (
        tuple(schedule(axes, compose, _coverage(scenes, region), _passes(scenes))) if axes else (_static_row(scenes),)
    )
    averaged = _averaged(scenes, load)
    members = [_members(scenes, row, averaged) for row in rows]
    decided = {
        "grid": grid_attributes(region.geobox),
        # How patient reads are decides no pixel, nor does the backend.
        "load": {name: value for name, value in asdict(load).items() if name not in ("read", "backend")},
        "compose": asdict(compose),
        "model": model.hash,
        "kernel": KERNEL_VERSION,
    }
    if compose.mask.recover_ice == "persistent":
        # Each row's mask then depends on all dates.
        decided["persistence"] = scenes.of("sentinel-2").fingerprint
    keys = tuple(_key(decided, part) for part in members)
    plan = Plan(
        region, scenes, rows, model, load, compose, store, keys, tuple(tuple(part.table["id"]) for part in members)
    )
    if len(set(plan.labels)) < len(plan.labels):
        twice = next(label for label in plan.labels if plan.labels.count(label) > 1)
        raise PlanError(f"two observations share the time {twice}", "leave one of their collections out")
    return plan


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


def _averaged(scenes: Scenes, load: LoadOptions) -> _Averaged:
    """Radar observations -> those that multilooking in time averages each with."""
    radar = "sentinel-1"
    return averaged_times(scenes.of(radar), load.radar) if radar in scenes.sensors else {}


def _members(scenes: Scenes, row: Row, averaged: _Averaged) -> Scenes:
    table = scenes.table
    used = {
        node: {other for time in times for other in (averaged.get(time, (time,)) if node == "sentinel1" else (time,))}
        for node, times in row.members.items()
    }
    known = {name: scenes.sensor(name) for name in scenes.sensors}
    keep = [
        known[sensor].static or time in used.get(known[sensor].node, ())
        for sensor, time in zip(table["sensor"], table["time"].to_numpy(), strict=True)
    ]
    return Scenes(table[keep], scenes.source, scenes.signing)


def _key(decided: dict[str, Any], part: Scenes) -> str:
    text = json.dumps({**decided, "scenes": part.fingerprint}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
