"""Phase one: from scenes and options to a plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from glaciercube.campaign.candidates import PlanOptions
from glaciercube.campaign.keeping import Kept, keep_companions
from glaciercube.campaign.keys import digest, make_key
from glaciercube.campaign.plan import Plan, axes_of, contexts_of
from glaciercube.campaign.unit import nanoseconds
from glaciercube.catalog import Scenes
from glaciercube.cube import ComposeOptions, LoadOptions, Row, schedule
from glaciercube.cube.coverage import coverage
from glaciercube.cube.passes import Pass, passes_of_scenes
from glaciercube.cube.radar import averaged_times
from glaciercube.errors import PlanError
from glaciercube.inference import KERNEL_VERSION
from glaciercube.region import Region
from glaciercube.store import StoreOptions
from glaciercube.store.layout import grid_attributes

if TYPE_CHECKING:
    from glaciercube.models.base import Model

__all__ = ["decisions_of", "make_plan"]

Indices: TypeAlias = npt.NDArray[np.int64]


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
    if made_of and model.contract.time_context is None:
        # Dates that look at others have no companions of their own to keep.
        kept = keep_companions(scenes, kept, made_of, lambda some: _rows(some, region, compose))
    plan = Plan(
        region,
        scenes,
        kept.rows,
        model,
        load,
        compose,
        store,
        keys=_keys(decisions_of(region, model, load, compose), scenes, kept, compose, model),
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
    axes = axes_of(scenes)
    if not axes:
        return (_static_row(scenes),)
    return tuple(schedule(axes, compose, _coverage(scenes, region), _passes(scenes)))


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
    decided: Mapping[str, str], scenes: Scenes, kept: Kept, compose: ComposeOptions, model: Model
) -> tuple[str, ...]:
    """Per row hashes over what was decided and what decides the pixels of its scenes, and of the dates it looks at."""
    texts = list(scenes.decisive())
    shared = []
    if compose.mask.recover_ice == "persistent":
        # Each row's mask then depends on all dates.
        shared = [scenes.of("sentinel-2").fingerprint.encode()]
    own = [[texts[place] for place in places] for places in kept.picked]
    keys = []
    for row, context in enumerate(contexts_of(kept.rows, model)):
        beside = [
            part for other in context if other != row for part in (str(kept.rows[other].time).encode(), *own[other])
        ]
        keys.append(make_key(decided, [*own[row], *beside, *shared]))
    return tuple(keys)
