"""Phase two: the units, each on its own, on a pool of threads."""

from __future__ import annotations

import importlib.metadata
import logging
import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any, get_args

import xarray as xr

from glaciercube.campaign.lacking import Reading, computed
from glaciercube.campaign.plan import Plan, Unit
from glaciercube.campaign.provenance import decisions
from glaciercube.cube import compose, load
from glaciercube.errors import ReadError, require
from glaciercube.inference import BlockOptions, block_window, check_cube, encode_block, predict_block
from glaciercube.inference.lazy import block_variables
from glaciercube.store import Check, Missing, Store, open_writer

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
    """

    threads: int = field(default_factory=lambda: os.cpu_count() or 1)
    dates: int = 4
    block: BlockOptions = field(default_factory=BlockOptions)
    progress: bool = False
    retry_missing: bool = False
    check: Check = "size"
    takeover: bool = False

    def __post_init__(self) -> None:
        for name, value in (("threads", self.threads), ("dates", self.dates)):
            require(value >= 1, f"{name} {value} is not a number of {name}", "give 1 or more")
        known = get_args(Check)
        require(self.check in known, f"{self.check!r} is no check of a store", f"give one of {', '.join(known)}")


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


def run(plan: Plan, options: RunOptions | None = None, config: Mapping[str, Any] | None = None) -> Outcome:
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
    """
    options = options or RunOptions()
    cube = check_cube(compose(load(plan.scenes, plan.region, plan.load), plan.compose), plan.model.contract)
    extra, attrs = _per_row(cube), _attributes(plan)
    with open_writer(plan.store, plan.region.geobox, plan.times, extra, attrs, takeover=options.takeover) as store:
        units = list(plan.units(store.done(options.check, lacking=not options.retry_missing)))
        modalities = [m.name for m in plan.model.contract.select([str(name) for name in cube.data_vars])]
        store.describe(
            {
                **_provenance(plan, config or {}),
                "modalities": sorted(modalities),
                "reflectance": str(cube.attrs.get("reflectance", "")),
                **{name: cube.attrs[name] for name in ("mask",) if name in cube.attrs},
            },
            attrs["source"],
        )
        total = len(plan.rows) * len(plan.blocks)
        left = sum(len(unit.rows) for unit in units)
        lazy = cube[block_variables(cube, plan.model.contract)].assign_coords(time=cube["time"])
        kernel = _Kernel(plan, lazy, store, options)
        _run_units(units, kernel, options, (total - left, total))
        if kernel.lacking:
            _log.warning("%d shards lack scenes that could not be read: see missing_scenes()", kernel.lacking)
    return Outcome(plan.store.path, left, total - left, kernel.lacking)


class _Kernel:
    """Does one unit: read, predict, write; holds what all units of this process share."""

    def __init__(self, plan: Plan, cube: xr.Dataset, store: Store, options: RunOptions) -> None:
        self.plan, self.cube, self.store, self.options = plan, cube, store, options
        self.stop = threading.Event()
        self.reading, self.lacking, self._lock = Reading(plan), 0, threading.Lock()

    def __call__(self, unit: Unit, advance: Callable[[int], Any]) -> list[ReadError]:
        """Do a unit; what could not be read is returned, and everything else is written."""
        contract = self.plan.model.contract
        y, x = self.plan.slices(unit.block)
        shape = (self.cube.sizes["y"], self.cube.sizes["x"])
        window = block_window(y, x, shape, halo=contract.receptive_field, stride=contract.stride)
        here = self.cube.isel(y=window.y.read, x=window.x.read)
        ground = computed(here[[name for name in here.data_vars if "time" not in here[name].dims]])
        static = encode_block(self.plan.model, ground, window, self.options.block)
        moving = here.drop_vars([name for name in here.data_vars if "time" not in here[name].dims])
        batches = [
            list(unit.rows[start : start + self.options.dates])
            for start in range(0, len(unit.rows), self.options.dates)
        ]
        failures: list[ReadError] = []
        gone: dict[str, Missing] = {}
        while batches and not self.stop.is_set():
            rows = batches.pop(0)
            try:
                found, missing = self.reading.compute(moving.isel(time=rows), rows, gone)
                arrays = {**found, **{k: v for k, v in ground.items() if k == "slope"}}
            except ReadError as error:
                # One bad file must not cost the dates that were read beside it.
                if len(rows) > 1:
                    batches[:0] = [[row] for row in rows]
                else:
                    failures.append(error)
                continue
            predicted = predict_block(self.plan.model, arrays, static, window, self.options.block, len(rows))
            keys = [self.plan.keys[row] for row in rows]
            self.store.write(self.plan.times[rows], unit.block, *predicted, keys, missing)
            with self._lock:
                self.lacking += sum(map(bool, missing))
            advance(len(rows))
        return failures


def _run_units(units: list[Unit], kernel: _Kernel, options: RunOptions, progress: tuple[int, int]) -> None:
    from tqdm.auto import tqdm

    failures: list[ReadError] = []
    with (
        tqdm(total=progress[1], initial=progress[0], unit="shard", desc="run", disable=not options.progress) as bar,
        ThreadPoolExecutor(options.threads, thread_name_prefix="glaciercube") as pool,
    ):
        pending: set[Future[list[ReadError]]] = set()
        queue = iter(units)
        try:
            while True:
                # A bounded number in flight: the arrays in memory do not grow with the region.
                while len(pending) < options.threads and (unit := next(queue, None)) is not None:
                    pending.add(pool.submit(kernel, unit, bar.update))
                if not pending:
                    break
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                for future in done:
                    failures += _failures(future)
        except BaseException:
            # Ctrl-C or a full disk: the units under way stop after their current dates.
            kernel.stop.set()
            raise
    if failures:
        raise _summary(failures)


def _failures(future: Future[list[ReadError]]) -> list[ReadError]:
    error = future.exception()
    if error is None:
        return future.result()
    if isinstance(error, ReadError):
        return [error]  # what all dates need could not be read
    raise error


def _summary(failures: list[ReadError]) -> ReadError:
    first = failures[0]
    # One bad file spoils many shards: each problem is told once.
    for other in sorted({str(failure) for failure in failures} - {str(first)}):
        _log.error("%s", other)
    others = f"; {len(failures)} shards could not be made" if len(failures) > 1 else ""
    return ReadError(
        f"{first.problem}{others}",
        f"{first.remedy}; then run again: the rest was written and only this is computed",
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


def _provenance(plan: Plan, config: Mapping[str, Any]) -> dict[str, Any]:
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
    }
