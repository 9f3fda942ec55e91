"""Phase two: the units, each on its own, on a pool of threads."""

from __future__ import annotations

import importlib.metadata
import logging
import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from glaciercube.campaign.explain import done_of
from glaciercube.campaign.plan import Plan, Unit
from glaciercube.cube import compose, load
from glaciercube.errors import GlaciercubeError, ReadError, require
from glaciercube.inference import BlockOptions, block_window, check_cube, encode_block, predict_block
from glaciercube.inference.lazy import block_variables
from glaciercube.store import ZarrStore

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
    """

    threads: int = field(default_factory=lambda: os.cpu_count() or 1)
    dates: int = 4
    block: BlockOptions = field(default_factory=BlockOptions)
    progress: bool = False

    def __post_init__(self) -> None:
        for name, value in (("threads", self.threads), ("dates", self.dates)):
            require(value >= 1, f"{name} {value} is not a number of {name}", "give 1 or more")


@dataclass(frozen=True)
class Outcome:
    """What a run did, in shards of single dates.

    Attributes
    ----------
    path : str
        The store.
    computed, skipped : int
        Shards computed now, and found done.
    """

    path: str
    computed: int
    skipped: int


def run(plan: Plan, options: RunOptions | None = None, config: Mapping[str, Any] | None = None) -> Outcome:
    """Do what is left of a plan; run again after a kill, and only what is missing is computed.

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
        If the store cannot be written; the run stops, and what was written stays.
    ReadError
        If files could not be read; everything else was finished.
    """
    options = options or RunOptions()
    cube = check_cube(compose(load(plan.scenes, plan.region, plan.load), plan.compose), plan.model.contract)
    store = ZarrStore.create_or_open(plan.store, plan.region.geobox, plan.times, _per_row(cube), _attributes(plan))
    units = list(plan.units(done_of(plan)))
    modalities = [m.name for m in plan.model.contract.select([str(name) for name in cube.data_vars])]
    store.describe(
        {
            **_provenance(plan, config or {}),
            "modalities": sorted(modalities),
            "reflectance": str(cube.attrs.get("reflectance", "")),
        },
        _attributes(plan)["source"],
    )
    total = len(plan.rows) * len(plan.blocks)
    left = sum(len(unit.rows) for unit in units)
    lazy = cube[block_variables(cube, plan.model.contract)].assign_coords(time=cube["time"])
    _run_units(units, _Kernel(plan, lazy, store, options), options, (total - left, total))
    return Outcome(plan.store.path, left, total - left)


class _Kernel:
    """Does one unit: read, predict, write; holds what all units of this process share."""

    def __init__(self, plan: Plan, cube: xr.Dataset, store: ZarrStore, options: RunOptions) -> None:
        self.plan, self.cube, self.store, self.options = plan, cube, store, options
        self.stop = threading.Event()

    def __call__(self, unit: Unit, advance: Callable[[int], Any]) -> list[ReadError]:
        """Do a unit; what could not be read is returned, and everything else is written."""
        contract = self.plan.model.contract
        y, x = self.store.slices(unit.block)
        shape = (self.cube.sizes["y"], self.cube.sizes["x"])
        window = block_window(y, x, shape, halo=contract.receptive_field, stride=contract.stride)
        here = self.cube.isel(y=window.y.read, x=window.x.read)
        ground = _compute(here[[name for name in here.data_vars if "time" not in here[name].dims]])
        static = encode_block(self.plan.model, ground, window, self.options.block)
        moving = here.drop_vars([name for name in here.data_vars if "time" not in here[name].dims])
        batches = [
            list(unit.rows[start : start + self.options.dates])
            for start in range(0, len(unit.rows), self.options.dates)
        ]
        failures: list[ReadError] = []
        while batches and not self.stop.is_set():
            rows = batches.pop(0)
            try:
                arrays = {**_compute(moving.isel(time=rows)), **{k: v for k, v in ground.items() if k == "slope"}}
            except ReadError as error:
                # One bad file must not cost the dates that were read beside it.
                if len(rows) > 1:
                    batches[:0] = [[row] for row in rows]
                else:
                    failures.append(error)
                continue
            found = predict_block(self.plan.model, arrays, static, window, self.options.block, len(rows))
            keys = [self.plan.keys[row] for row in rows]
            self.store.write(self.plan.times[rows], unit.block, *found, keys)
            advance(len(rows))
        return failures


def _compute(part: xr.Dataset) -> dict[str, np.ndarray[Any, Any]]:
    # Units are the parallelism: a read within one must not start another pool.
    loaded = part.compute(scheduler="synchronous")
    return {str(name): variable.to_numpy() for name, variable in loaded.data_vars.items()}


def _run_units(units: list[Unit], kernel: _Kernel, options: RunOptions, progress: tuple[int, int]) -> None:
    from tqdm.auto import tqdm

    failures: list[GlaciercubeError] = []
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


def _failures(future: Future[list[ReadError]]) -> list[GlaciercubeError]:
    error = future.exception()
    if error is None:
        found: list[GlaciercubeError] = [*future.result()]
    elif isinstance(error, ReadError):
        found = [error]  # what all dates need could not be read
    else:
        raise error
    return found


def _summary(failures: list[GlaciercubeError]) -> GlaciercubeError:
    first = failures[0]
    # One bad file spoils many shards: each problem is told once.
    for other in sorted({str(failure) for failure in failures} - {str(first)}):
        _log.error("%s", other)
    others = f"; {len(failures)} shards could not be made" if len(failures) > 1 else ""
    return ReadError(
        f"{first.problem}{others}",
        f"{first.remedy}; then run again: the rest was written and only this is computed",
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
    table = plan.scenes.table
    packages = ("glaciercube", "numpy", "xarray", "zarr", "odc-stac", "rasterio", "torch")
    return {
        "catalog": plan.scenes.source,
        "scenes_fingerprint": plan.scenes.fingerprint,
        "scenes": {label: list(ids) for label, ids in zip(plan.labels, plan.scene_ids, strict=True)},
        "reflectance_offsets": dict(zip(table["id"], table["offset"].astype(float), strict=True)),
        "model": plan.model.contract.name,
        "model_version": plan.model.contract.version,
        "model_hash": plan.model.hash,
        "sensors": list(plan.scenes.sensors),
        "compose": plan.compose.every,
        "config": dict(config),
        "versions": {name: importlib.metadata.version(name) for name in packages},
    }
