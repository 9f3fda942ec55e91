"""Next month: what a new search found, beside what a store was made of."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal

import pandas as pd

from glaciercube.campaign.candidates import PlanOptions
from glaciercube.campaign.memory import Memory, remembered
from glaciercube.campaign.options import RunOptions
from glaciercube.campaign.plan import Plan
from glaciercube.campaign.planning import decisions_of, make_plan
from glaciercube.campaign.provenance import settled
from glaciercube.campaign.run import Outcome, run
from glaciercube.catalog import Scenes, hull, parse_interval
from glaciercube.cluster import ClusterOptions
from glaciercube.cube import ComposeOptions, LoadOptions
from glaciercube.reading.retry import ReadOptions
from glaciercube.region import Region
from glaciercube.sensors import SceneFacts
from glaciercube.store import StoreOptions

if TYPE_CHECKING:
    from distributed import Client

    from glaciercube.models.base import Model

__all__ = ["Companions", "merged", "patience", "replan", "update", "update_plan"]

Companions = Literal["keep", "renew"]
# Versions of one scene differ in when they were processed, and not in when they were taken.
_ALIKE: Final = pd.Timedelta(days=1)
# What says which observation a scene is of.
_LABEL: Final = ("time", "solar_day", "group")


def update(
    region: Region,
    found: Scenes,
    model: Model,
    store: StoreOptions,
    options: RunOptions | None = None,
    config: Mapping[str, Any] | None = None,
    *,
    cluster: ClusterOptions | Client | None = None,
    **planning: Any,
) -> Outcome:
    """Add to a store what a new search found: `update_plan`, then `glaciercube.campaign.run`.

    Parameters
    ----------
    region, found, model, store, **planning
        As of `update_plan`; its ``options`` are given as ``planning``.
    options, config, cluster
        As of `glaciercube.campaign.run`.

    Returns
    -------
    Outcome
        Counts of shards.
    """
    chosen = planning.pop("planning", None)
    plan = update_plan(region, found, model, store, options=chosen, **planning)
    return run(plan, options, config, cluster=cluster)


def update_plan(
    region: Region,
    found: Scenes,
    model: Model,
    store: StoreOptions,
    *,
    companions: Companions = "keep",
    load: LoadOptions | None = None,
    compose: ComposeOptions | None = None,
    options: PlanOptions | None = None,
    progress: bool = False,
) -> Plan:
    """Plan a store again with what a new search found; `glaciercube.campaign.run` then does what is new or changed.

    Dates are added wherever they fall. A date whose scenes were processed again, or completed, is composed anew and
    its key changes. Scenes that the catalogue does not have any more, and that no other replaces, stay in the plan, and
    the ground is that of the first plan, as long as companions are kept. So do the scenes of the store that are outside
    of the interval that was searched. With windows (``month`` ...), a new date
    changes the window that it falls into.

    Parameters
    ----------
    region, model, store, load, compose, options
        As of `make_plan`.
    found : Scenes
        What `glaciercube.catalog.find` finds now, in the same sensors.
    companions : {"keep", "renew"}
        ``keep``: a late scene of Sentinel-1, or of another companion, changes no date whose own scenes are the same.
        ``renew``: every date takes the companions that are best now.
    progress : bool
        Show a progress bar of the scenes whose offsets are looked at: those that are new.

    Raises
    ------
    StoreError
        If there is something else at the path, or it cannot be read.
    """
    memory = remembered(store, region.geobox)
    # Scenes that a program gave have no request of their own; what they continue is the caller's word.
    if memory is not None and memory.scenes is not None and memory.scenes.sensors == found.sensors:
        found = merged(memory.scenes, found, renew=companions == "renew", beyond=True)
    return replan(
        region,
        settled(found, region, store, progress=progress, read=patience(load)),
        model,
        store,
        memory,
        companions=companions,
        load=load,
        compose=compose,
        options=options,
        request=_carried_on(memory, found),
    )


def replan(
    region: Region,
    scenes: Scenes,
    model: Model,
    store: StoreOptions,
    memory: Memory | None,
    *,
    companions: Companions = "keep",
    load: LoadOptions | None = None,
    compose: ComposeOptions | None = None,
    options: PlanOptions | None = None,
    request: Mapping[str, Any] | None = None,
) -> Plan:
    """Decide a job for a store that remembers another; see `update_plan` and `make_plan`."""
    load, compose = load or LoadOptions(), compose or ComposeOptions()
    made_of = None
    if memory is not None and companions == "keep":
        made_of = memory.keeps(scenes, decisions_of(region, model, load, compose))
    return make_plan(
        region, scenes, model, store, load=load, compose=compose, options=options, made_of=made_of, request=request
    )


def patience(load: LoadOptions | None) -> ReadOptions | None:
    """How looks at pixels are read: they have a patience of their own, unless the user has."""
    return None if load is None or load.read == ReadOptions() else load.read


def _carried_on(memory: Memory | None, found: Scenes) -> dict[str, Any] | None:
    """The request that a store's scenes answer together with those that a program found."""
    if memory is None or memory.request is None or not memory.is_of(found):
        return None
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    searched = hull(str(memory.request["searched"]), found.interval) or memory.request["searched"]
    return {**memory.request, "searched": searched, "asked": now}


def merged(known: Scenes, found: Scenes, *, renew: bool = False, beyond: bool = False) -> Scenes:
    """Scenes of a new search, with those that only an earlier one found.

    Parameters
    ----------
    known : Scenes
        As they were frozen.
    found : Scenes
        What is found now. Its interval says which of the known scenes count.
    renew : bool
        Take the ground as it is found now.
    beyond : bool
        Known scenes outside of that interval count, too, and the interval becomes the hull of both.

    Returns
    -------
    Scenes
        Found scenes; known ones that are gone and that none replaces; observations keep their labels. The ground is
        the known one.
    """
    still = [name for name in known.sensors if known.sensor(name).static and name in found.sensors]
    if renew:
        known = replace(known, table=known.table[~known.table["sensor"].isin(still)].reset_index(drop=True))
        still = []
    ground, now = (one.table[one.table["sensor"].isin(still)] for one in (known, found))
    fresh = found.table[~found.table["sensor"].isin(still)]
    if set(now["id"]) != set(ground["id"]):
        warnings.warn(
            f"the catalogue has other tiles of {' and '.join(still)} now: the store's own are kept",
            UserWarning,
            stacklevel=2,
        )
    moving = known.table[~known.table["sensor"].isin(still)]
    # Outside of the interval nobody looked whether a scene is still there.
    counts = beyond | _inside(moving["datetime"], found.interval)
    gone = moving[~moving["id"].isin(fresh["id"]) & counts]
    left = gone[[not _is_replaced(known, scene, found) for _, scene in gone.iterrows()]]
    # Where its files are is said by the catalogue of now.
    same, lost = now[now["id"].isin(ground["id"])], ground[~ground["id"].isin(now["id"])]
    parts = [part for part in (_labelled(fresh, moving), left, same, lost) if len(part)]
    table = pd.concat(parts).sort_values(["sensor", "time", "id"]).reset_index(drop=True)
    return replace(found, table=table, interval=hull(known.interval, found.interval) if beyond else found.interval)


def _inside(when: pd.Series[Any], interval: str) -> pd.Series[Any]:
    begin, end = parse_interval(interval) if interval else (None, None)
    inside = pd.Series(True, index=when.index)
    for bound, side in ((begin, when.ge), (end, when.le)):
        if bound is not None:
            inside &= side(pd.Timestamp(bound).tz_localize(None))
    return inside


def _labelled(fresh: Any, known: Any) -> Any:
    """Found scenes, those of an observation that was known before by its label: a late part must not shift it."""
    labels: dict[tuple[str, str], tuple[Any, ...]] = {}
    for sensor, name, *label in zip(*(known[column] for column in ("sensor", "id", *_LABEL)), strict=True):
        labels[sensor, name] = labels[sensor, str(label[-1])] = tuple(label)
    found = list(zip(*(fresh[column] for column in ("sensor", "id", *_LABEL)), strict=True))
    # Of an observation, whatever the first of its scenes that was known says, else the observation of that name.
    first: dict[tuple[str, str], tuple[Any, ...]] = {}
    for sensor, name, *label in found:
        before = labels.get((sensor, name)) or labels.get((sensor, label[-1]))
        if before is not None and label[-1]:
            first.setdefault((sensor, label[-1]), before)
    chosen = [first.get((sensor, label[-1]), tuple(label)) for sensor, _, *label in found]
    columns = {name: [label[number] for label in chosen] for number, name in enumerate(_LABEL)}
    times = pd.Series(pd.to_datetime(columns.pop("time")), index=fresh.index).astype(fresh["time"].dtype)
    return fresh.assign(time=times, **columns)


def _is_replaced(known: Scenes, scene: Any, found: Scenes) -> bool:
    """Whether a scene that is gone was processed again."""
    table = found.table
    near = table[(table["sensor"] == scene["sensor"]) & ((table["datetime"] - scene["datetime"]).abs() < _ALIKE)]
    own = _facts(known, scene)
    for _, row in near[near["level"] == scene["level"]].iterrows():
        other = _facts(known, row)
        # Parts of one baseline complete each other (`glaciercube.catalog.observe.without_duplicates`).
        if other.key == own.key and (other.part == own.part or other.rank[:1] != own.rank[:1]):
            return True
    return False


def _facts(scenes: Scenes, row: Any) -> SceneFacts:
    import pystac

    item = pystac.Item.from_dict(json.loads(row["item"]), preserve_dict=False, migrate=False)
    return scenes.sensor(row["sensor"]).facts(item)
