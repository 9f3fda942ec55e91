"""What a unit costs beside reading and predicting: ``python -m glaciercube.bench.units [threads|cluster] [units ...]``.

The plan, its store, the driver, the scheduler and the commits are real; a stand-in for the kernel reads nothing and
predicts nothing and writes no pixels, but says so as if it had. Driver, scheduler and workers are one process.
"""

from __future__ import annotations

import json
import math
import resource
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from typing import Any, Final
from unittest import mock

import click
import numpy as np
from affine import Affine
from distributed import Client, LocalCluster, SchedulerPlugin
from odc.geo.geobox import GeoBox

from glaciercube.bench.planning import made_scenes
from glaciercube.campaign import RunOptions, make_plan, run
from glaciercube.campaign.kernel import Inputs, Kernel, Outputs
from glaciercube.campaign.plan import Plan
from glaciercube.campaign.task import Task
from glaciercube.region import Region
from glaciercube.sentences import told
from glaciercube.store import StoreOptions, Written, row_label
from glaciercube.store.ledger import Mark, Piece
from glaciercube.store.zarrstore import ZarrStore

__all__ = ["StandIn", "TaskCounter", "main", "measure", "plan_of"]

# Pixels of a shard, and dates of a unit.
_SIDE: Final = 16
_DATES: Final = 4


class StandIn(Kernel):
    """Reads, predicts and stores nothing, and marks it as the kernel does."""

    def read(self, task: Task) -> Inputs:
        """Nothing."""
        return Inputs(task, {}, {}, (), ((),) * len(task.places), ())

    def predict(self, inputs: Inputs, device: str | None = None) -> Outputs:  # noqa: ARG002 - as the kernel
        """Nothing."""
        empty = np.zeros((0, 0, 0))
        return Outputs(inputs.task, empty.astype(np.float32), empty.astype(np.uint8), inputs.missing, ())

    @staticmethod
    def write(outputs: Outputs, write: Any) -> Any:
        """Marks of shards that are all fill."""
        task, nothing = outputs.task, (Piece(0, ""), Piece(0, ""))
        rows = zip(task.times, task.unit.rows, task.keys, strict=True)
        written = Written(tuple(Mark(row_label(time), row, task.unit.block, key, nothing) for time, row, key in rows))
        store = write.__self__
        if isinstance(store, ZarrStore):
            # On threads a unit is prepared, written and committed in one.
            store.prepare((mark.row, mark.block) for mark in written.marks)
            store.commit([written])
        return written, ()


class TaskCounter(SchedulerPlugin):
    """Counts the tasks that a scheduler is given.

    Attributes
    ----------
    tasks : Counter
        Number of tasks by prefix of their keys.
    """

    name = "glaciercube-bench"

    def __init__(self) -> None:
        self.tasks: Counter[str] = Counter()

    def transition(self, key: Any, start: str, finish: str, *args: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Take a change of a task's state."""
        if start == "released" and finish in ("waiting", "no-worker", "queued", "processing"):
            self.tasks[str(key[0] if isinstance(key, tuple) else key)] += 1


def plan_of(units: int, store: str) -> Plan:
    """A plan of about so many units of four dates each, of scenes that nobody has.

    Parameters
    ----------
    units : int
        At least so many.
    store : str
        Path.
    """
    from glaciercube.campaign import PlanOptions
    from glaciercube.models import load_model

    side = math.ceil(math.sqrt(units))
    # 100,000 units of 16 pixels of 20 m are 101 km wide: one granule, as for few.
    geobox = GeoBox((side * _SIDE, side * _SIDE), Affine(20, 0, 400_000, 0, -20, 5_400_000), "EPSG:32632")
    region = Region("made up", geobox)
    options = StoreOptions(store, shard=_SIDE, chunk=_SIDE)
    scenes = made_scenes(region, _DATES)
    return make_plan(region, scenes, load_model("ndsi"), options, options=PlanOptions("all"))


def measure(units: int, *, cluster: bool) -> dict[str, float]:
    """Run so many units and say what one took.

    Parameters
    ----------
    units : int
        About how many.
    cluster : bool
        On a LocalCluster of this process; else on two threads.

    Returns
    -------
    dict
        ``units``, ``seconds``, ``ms_per_unit``, ``grown_mb`` (peak of this process beyond what it held before) and, on
        a cluster, ``tasks_per_unit``.
    """
    counter = TaskCounter()
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        plan = plan_of(units, f"{folder}/a.zarr")
        count = len(plan.blocks)
        for module in ("worker", "threads_run"):
            stack.enter_context(mock.patch(f"glaciercube.campaign.{module}.Kernel", StandIn))
        client = None
        if cluster:
            local = LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=":0")
            stack.enter_context(local)
            client = stack.enter_context(Client(local, set_as_default=False))
            scheduler: Any = local.scheduler
            scheduler.add_plugin(counter)
        before, begun = _peak(), time.perf_counter()
        run(plan, RunOptions(threads=2, dates=_DATES), cluster=client)
        seconds = time.perf_counter() - begun
    found = {
        "units": count,
        "seconds": round(seconds, 1),
        "ms_per_unit": round(1e3 * seconds / count, 2),
        "grown_mb": round((_peak() - before) / 1e6),
    }
    ours = sum(number for name, number in counter.tasks.items() if name.startswith("glaciercube"))
    return {**found, "tasks_per_unit": round(ours / count, 3)} if cluster else found


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@click.command()
@click.argument("kind", type=click.Choice(("threads", "cluster")), default="cluster")
@click.argument("units", type=click.IntRange(min=1), nargs=-1)
@told
def main(*, kind: str, units: tuple[int, ...]) -> None:
    """Measure several numbers of UNITS (100, 1000, 10000, 100000), and by how much the cost of one grows."""
    # Libraries are loaded, and caches filled.
    measure(20, cluster=kind == "cluster")
    costs = []
    for number in units or (100, 1_000, 10_000, 100_000):
        found = measure(number, cluster=kind == "cluster")
        costs.append(found["ms_per_unit"])
        click.echo(json.dumps({"path": kind, **found}))
    click.echo(json.dumps({"largest_to_smallest": round(costs[-1] / costs[0], 2)}))


if __name__ == "__main__":
    main()
