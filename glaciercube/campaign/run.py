"""Phase two: the units, each on its own, on threads of this process or on a cluster."""

from __future__ import annotations

import importlib.metadata
import logging
import os
import secrets
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import xarray as xr

from glaciercube.campaign.events import Watch, log_beside
from glaciercube.campaign.kernel import Kernel, tasks
from glaciercube.campaign.lacking import Witnesses
from glaciercube.campaign.plan import Plan, Unit
from glaciercube.campaign.provenance import decisions
from glaciercube.campaign.unit import skeleton
from glaciercube.cluster import ClusterOptions, address_of, check_paths, connect
from glaciercube.errors import GlaciercubeError, ReadError, require
from glaciercube.inference import BlockOptions, check_cube
from glaciercube.reading.address import Address
from glaciercube.store import Check, Store, open_writer

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["Outcome", "RunOptions", "run"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunOptions:
    """How units are run.

    Attributes
    ----------
    threads : int
        Units at a time; as many as there are cores by default.
    dates : int
        Dates read, predicted and written at a time; bounds memory.
    block : BlockOptions
        Batch and device.
    progress : bool
        Show a progress bar.
    retry_missing : bool
        Do those shards again, too, that were made without some scenes because they could not be read.
    check : {"size", "sha256", "none"}
        How what the store holds is held against what was recorded; see `glaciercube.store.Store.done`.
    takeover : bool
        Take the store from a run that has died on another machine, before its lease ends.
    in_flight : int or None
        Units of ``dates`` dates that are under way on a cluster; by default two per thread of it.
    events : str
        Event log, to which lines are added (`glaciercube.campaign.events.Watch`): a path; ``beside`` the store
        (``NAME.events.jsonl``; a bucket has none); or empty for none.
    """

    threads: int = field(default_factory=lambda: os.cpu_count() or 1)
    dates: int = 4
    block: BlockOptions = field(default_factory=BlockOptions)
    progress: bool = False
    retry_missing: bool = False
    check: Check = "size"
    takeover: bool = False
    in_flight: int | None = None
    events: str = "beside"

    def __post_init__(self) -> None:
        for name, value in (("threads", self.threads), ("dates", self.dates), ("in_flight", self.in_flight)):
            require(value is None or value >= 1, f"{name} {value} is not a number of {name}", "give 1 or more")
        known = get_args(Check)
        require(self.check in known, f"{self.check!r} is no check of a store", f"give one of {', '.join(known)}")

    def event_log(self, store: str) -> Path | None:
        """Path of the event log of a run into a store; None for none."""
        if self.events == "beside":
            return log_beside(store)
        return Path(self.events) if self.events else None


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
    """

    path: str
    computed: int
    skipped: int
    lacking: int = 0


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
    with ExitStack() as stack:
        given = ClusterOptions() if cluster is None else cluster
        where = given if isinstance(given, ClusterOptions) else ClusterOptions(address_of(given))
        client = None if where.kind == "threads" else stack.enter_context(connect(given))
        if client is not None:
            plan = _shared(plan, client)
        cube = check_cube(skeleton(plan), plan.model.contract)
        store = stack.enter_context(
            open_writer(
                plan.store,
                plan.region.geobox,
                plan.times,
                _per_row(cube),
                _attributes(plan),
                takeover=options.takeover,
            )
        )
        units = list(plan.units(store.done(options.check, lacking=not options.retry_missing)))
        store.describe(_provenance(plan, cube, config or {}), _attributes(plan)["source"])
        left = sum(len(unit.rows) for unit in units)
        watch = stack.enter_context(
            Watch(plan, secrets.token_hex(4), left, bar=options.progress, path=options.event_log(plan.store.path))
        )
        watch.began(where.kind, "" if client is None else str(client.dashboard_link or ""))
        if client is None:
            lacking, failures = _Threads(plan, store, options, watch).run(iter(units))
        else:
            from glaciercube.campaign.distributed_run import Placement, run_units

            placement = Placement(where.resource, where.wait, options.in_flight, options.dates)
            lacking, failures = run_units(
                client, iter(units), plan, store, options.block, placement=placement, watch=watch
            )
        if lacking:
            _log.warning("%d shards lack scenes that could not be read: see missing_scenes()", lacking)
        if failures:
            raise _summary(failures, watch.failed)
    return Outcome(plan.store.path, left, len(plan.rows) * len(plan.blocks) - left, lacking)


class _Threads:
    """Does units on threads of this process."""

    def __init__(self, plan: Plan, store: Store, options: RunOptions, watch: Watch) -> None:
        self.witnesses = Witnesses.of(plan)
        self.kernel = Kernel(plan.model, options.block, self.witnesses, options.threads + 1)
        self.plan, self.store, self.options, self.watch = plan, store, options, watch
        self.stop = threading.Event()
        self.lacking, self._lock = 0, threading.Lock()

    def run(self, units: Iterator[Unit]) -> tuple[int, list[BaseException]]:
        """Do units; how many shards lack scenes, and what could not be read. Everything else is written."""
        failures: list[BaseException] = []
        with ThreadPoolExecutor(self.options.threads, thread_name_prefix="glaciercube") as pool:
            pending: set[Future[list[ReadError]]] = set()
            try:
                while True:
                    # A bounded number in flight: the arrays in memory do not grow with the region.
                    while len(pending) < self.options.threads and (unit := next(units, None)) is not None:
                        pending.add(pool.submit(self._do, unit))
                    if not pending:
                        break
                    done, pending = wait(pending, return_when=FIRST_COMPLETED)
                    for future in done:
                        failures += future.result()
            except BaseException:
                # Ctrl-C or a full disk: the units under way stop after their current dates.
                self.stop.set()
                raise
        return self.lacking, failures

    def _do(self, unit: Unit) -> list[ReadError]:
        failures: list[ReadError] = []
        for task in tasks(self.plan, unit, self.options.dates, self.witnesses.shared):
            part = task.unit
            if self.stop.is_set():
                break
            self.watch.started(part)
            try:
                inputs = self.kernel.read(task)
            except ReadError as error:
                # What all dates need could not be read.
                rest = replace(unit, rows=unit.rows[unit.rows.index(part.rows[0]) :])
                self.watch.missed(rest, error)
                return [*failures, error]
            outputs = self.kernel.predict(inputs)
            _, steps = self.kernel.write(outputs, self.store.write)
            with self._lock:
                self.lacking += sum(map(bool, outputs.missing))
            for row, failure in outputs.failures:
                failures.append(failure)
                self.watch.missed(replace(part, rows=(row,)), failure)
            self.watch.finished(outputs.task.unit, steps)
        return failures


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
    for name, item, bands in zip(plan.scenes.table["sensor"], plan.scenes.items(), plan.scenes.bands(), strict=True):
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


def _per_row(cube: xr.Dataset) -> xr.Dataset:
    """Variables and bounds along time alone, such as the companions' age."""
    names = [name for name, variable in cube.variables.items() if variable.dims[:1] == ("time",) and name != "time"]
    # Numbers and bounds: text (the pass of a radar scene) has no stable spelling in Zarr, and the scenes are recorded.
    keep = [name for name in names if set(cube[name].dims) <= {"time", "bnds"} and cube[name].dtype.kind in "fM"]
    return xr.Dataset({name: cube[name].variable for name in keep}).set_coords(
        [name for name in keep if name in cube.coords]
    )


def _attributes(plan: Plan) -> dict[str, Any]:
    return {
        "title": f"Glacier probability of {plan.region.name}",
        "source": f"glaciercube {importlib.metadata.version('glaciercube')}, model {plan.model.contract.name}",
        "region": plan.region.name,
    }


def _provenance(plan: Plan, cube: xr.Dataset, config: Mapping[str, Any]) -> dict[str, Any]:
    modalities = [m.name for m in plan.model.contract.select([str(name) for name in cube.data_vars])]
    packages = ("glaciercube", "numpy", "xarray", "zarr", "odc-stac", "rasterio", "torch")
    return {
        "catalog": plan.scenes.source,
        "scenes_fingerprint": plan.scenes.fingerprint,
        "scenes": {label: list(ids) for label, ids in zip(plan.labels, plan.scene_ids, strict=True)},
        **decisions(plan.scenes, plan.load),
        "model": plan.model.contract.name,
        "model_version": plan.model.contract.version,
        "model_hash": plan.model.hash,
        "sensors": list(plan.scenes.sensors),
        "compose": plan.compose.every,
        "config": dict(config),
        "versions": {name: importlib.metadata.version(name) for name in packages},
        "modalities": sorted(modalities),
        "reflectance": str(cube.attrs.get("reflectance", "")),
        **{name: cube.attrs[name] for name in ("mask",) if name in cube.attrs},
    }
