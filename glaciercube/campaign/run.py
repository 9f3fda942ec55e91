"""Phase two: the units, each on its own, on threads of this process or on a cluster."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from glaciercube.campaign.allocator import give_memory_back
from glaciercube.campaign.events import Watch
from glaciercube.campaign.failed import Failures
from glaciercube.campaign.lacking import spread
from glaciercube.campaign.left import Left, what_is_left
from glaciercube.campaign.memory import freeze, remembered
from glaciercube.campaign.options import RunOptions
from glaciercube.campaign.plan import Plan
from glaciercube.campaign.provenance import attributes, per_row, provenance, standing
from glaciercube.campaign.threads_run import run_on_threads
from glaciercube.campaign.unit import skeleton
from glaciercube.cluster import ClusterOptions, address_of, check_paths, connect
from glaciercube.errors import GlaciercubeError, ReadError
from glaciercube.inference import check_cube
from glaciercube.reading.address import Address
from glaciercube.store import Store, open_records, open_writer

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["Outcome", "RunOptions", "run"]

_log = logging.getLogger(__name__)

# Scenes of each collection whose folders workers are asked for.
_FILES: Final = 400


@dataclass(frozen=True)
class Outcome:
    """What a run did, in shards of single dates.

    Attributes
    ----------
    path : str
        The store.
    computed, skipped : int
        Shards computed now, and found done.
    lacking : int
        Shards computed now without some of their scenes; `glaciercube.store.missing_scenes` names these.
    empty : int
        Shards that hold nothing (no candidates), which was written down now.
    reasons : mapping of str to int
        Why shards were computed -> how many.
    """

    path: str
    computed: int
    skipped: int
    lacking: int = 0
    empty: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict)


def run(
    plan: Plan,
    options: RunOptions | None = None,
    config: Mapping[str, Any] | None = None,
    *,
    cluster: ClusterOptions | Client | None = None,
) -> Outcome:
    """Do what is left of a plan; run again after a kill, and only what is missing is computed.

    A scene that can never be read (not there, refused, corrupt) is left out of the shard, with all its bands, and the
    shard is made from the others; that, and why, is recorded with the shard (`glaciercube.store.missing_scenes`). The
    shard then counts as done, unless ``retry_missing`` is asked for. Where nothing else can be read from the same
    place either, it is taken for a fault of the place (a disk that is not mounted, credentials) and is an error. A
    scene that might be read at another time (time-outs, 429, 5xx that outlast `ReadOptions.budget`) is an error, and
    leaves its shards undone for the next run. So is the ground: it is the same for all dates.

    Parameters
    ----------
    plan : Plan
        From `make_plan`.
    options : RunOptions or None
        Threads, batch, progress.
    config : mapping or None
        The user's configuration, kept as provenance.
    cluster : ClusterOptions, distributed.Client or None
        Where; on threads of this process by default. A client's cluster is left open. The pixels are the same on all,
        as long as devices are of one kind.

    Returns
    -------
    Outcome
        Counts of shards.

    Raises
    ------
    GridMismatchError
        If the store was made with another grid.
    StoreError
        If the store cannot be written, and then the run stops and what was written stays; if another run writes to it.
    ReadError
        If files could not be read; everything else was finished.
    ClusterError
        If the cluster cannot be used, and nothing was done then; if workers died of units, or were all gone.
    """
    options = options or RunOptions()
    give_memory_back()
    with ExitStack() as stack:
        given = ClusterOptions() if cluster is None else cluster
        where = given if isinstance(given, ClusterOptions) else ClusterOptions(address_of(given))
        machines = stack.enter_context(ExitStack())
        client = None if where.kind == "threads" else machines.enter_context(connect(given))
        if client is not None:
            plan = _shared(plan, client)
        name = secrets.token_hex(4)
        job = _begin(stack, plan, options, config or {}, name)
        left, log = job.left, options.event_log(plan.store.path)
        watch = stack.enter_context(Watch(plan, name, left, job.failures, bar=options.progress, path=log))
        watch.began(where.kind, "" if client is None else str(client.dashboard_link or ""))
        lacking, errors = _do(plan, job.store, options, watch, left=left, where=where, client=client)
        job.describe_again()
        if options.levels:
            # One process does it: the cluster need not wait for that.
            machines.close()
            watch.say("building levels", logging.INFO)
            job.store.build_levels()
        if lacking:
            _log.warning("%d shards lack scenes that could not be read: see missing_scenes()", lacking)
        if errors:
            raise _summary(errors, watch.failed)
    return Outcome(plan.store.path, left.shards, left.done, lacking, left.empty, left.reasons)


@dataclass(frozen=True)
class _Job:
    """A plan and its store, open for writing: what is left, and what the store says of itself."""

    plan: Plan
    store: Store
    failures: Failures
    left: Left
    stored: Mapping[str, Sequence[str]]
    made: Mapping[str, Any]
    said: Mapping[str, Any]

    def describe(self, said: Mapping[str, Any]) -> None:
        self.store.describe({**self.made, **said}, attributes(self.plan)["source"])

    def describe_again(self) -> None:
        """What was made anew may be called so now."""
        if len(self.said) > 1:
            again = what_is_left(self.plan, RunOptions(check="none"), self.store, self.failures, self.stored)
            self.describe(standing(self.plan, again, self.said))


def _begin(stack: ExitStack, plan: Plan, options: RunOptions, config: Mapping[str, Any], name: str) -> _Job:
    """Open the store for as long as the stack lasts, and write down what is going to be made."""
    cube = check_cube(skeleton(plan), plan.model.contract)
    # Before it is written over.
    memory = remembered(plan.store, plan.region.geobox)
    stored, said = (memory.stored, memory.said) if memory else ({}, {})
    grid, about, rows = plan.region.geobox, attributes(plan), per_row(cube)
    store = stack.enter_context(open_writer(plan.store, grid, plan.times, rows, about, takeover=options.takeover))
    records = open_records(plan.store)
    failures = Failures(records, name)
    left = what_is_left(plan, options, store, failures, stored)
    failures.settle(plan, left)
    made = provenance(plan, cube, config)
    job = _Job(plan, store, failures, left, stored, made, standing(plan, left, said))
    job.describe(job.said)
    freeze(records, plan)
    return job


def _do(
    plan: Plan,
    store: Store,
    options: RunOptions,
    watch: Watch,
    *,
    left: Left,
    where: ClusterOptions,
    client: Client | None,
) -> tuple[int, list[BaseException]]:
    """Do what is left; how many shards lack scenes, and what could not be made."""
    units = plan.units_left(left.todo)
    if client is None:
        return run_on_threads(units, plan, store, options, watch)
    from glaciercube.campaign.distributed_run import Placement, run_units

    placement = Placement(where.resource, where.wait, options.in_flight, options.dates, tuple(_some_files(plan)))
    return run_units(client, units, plan, store, options.block, placement=placement, watch=watch)


def _shared(plan: Plan, client: Any) -> Plan:
    """The plan with paths that mean the same on every worker; refused where a worker does not see them."""
    local = "://" not in plan.store.path
    if local:
        plan = replace(plan, store=replace(plan.store, path=str(Path(plan.store.path).absolute())))
    check_paths(client, plan.store.path if local else None, _some_files(plan))
    return plan


def _some_files(plan: Plan) -> list[str]:
    """A file of each sensor's in every folder of the upper levels, where files are of a disk."""
    chosen: dict[tuple[str, ...], str] = {}
    some = spread(plan.scenes, _FILES)
    for name, item, bands in zip(some.table["sensor"], some.items(), some.bands(), strict=True):
        for band in list(bands.values())[:1]:
            path = item.assets[band.asset].href.removeprefix("file://")
            if not Address(path).is_remote:
                chosen.setdefault((name, *Path(path).parts[:4]), path)
    return list(chosen.values())


def _summary(failures: Sequence[BaseException], shards: int) -> GlaciercubeError:
    """One error of all: each problem was told when it came."""
    first = failures[0]
    if not isinstance(first, GlaciercubeError):
        raise first
    others = f"; {shards} shards could not be made" if shards > 1 else ""
    problem = f"{first.problem}{others}"
    remedy = f"{first.remedy}; then run again: the rest was written and only this is computed"
    if shards > 1:
        remedy += " (`glaciercube failed` lists it)"
    if not isinstance(first, ReadError):
        return type(first)(problem, remedy)
    return ReadError(
        problem,
        remedy,
        failure=first.failure,
        uri=first.uri,
        scene=first.scene,
        band=first.band,
        reason=first.reason,
    )
