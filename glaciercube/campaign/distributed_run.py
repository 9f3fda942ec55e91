"""Units on a cluster: their data stay where they were read, and one driver says what is done."""

from __future__ import annotations

import pickle
import queue
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Final

from distributed import KilledWorker

from glaciercube.campaign import worker
from glaciercube.campaign.batches import Batch
from glaciercube.campaign.events import Watch
from glaciercube.campaign.lacking import Witnesses
from glaciercube.campaign.plan import Plan, Unit
from glaciercube.campaign.task import Task, tasks
from glaciercube.cluster import Crew, Paths, Versions, predict_resources, registered
from glaciercube.devices import DevicePlugin
from glaciercube.errors import ClusterError, ReadError
from glaciercube.inference import BlockOptions
from glaciercube.models.registry import pack_model
from glaciercube.reading.access import Access
from glaciercube.reading.carried import Carried
from glaciercube.store import Store

if TYPE_CHECKING:
    from distributed import Client, Future

__all__ = ["Placement", "run_units"]

# Units whose old marks are withdrawn together.
_PREPARED: Final = 256
# How long the driver waits for something to end before it looks up, seconds.
_LOOK: Final = 1.0
_PER_THREAD: Final = 2
# What a whole unit takes of the resource where all workers have it: threads bound their number, and the device's turn
# is kept by the kernel.
_LITTLE: Final = 2.0**-10


@dataclass(frozen=True)
class Placement:
    """Where and how much at a time.

    Attributes
    ----------
    resource : str or None
        What a prediction needs; see `glaciercube.cluster.ClusterOptions`.
    wait : float
        Seconds to wait when all workers are gone.
    in_flight : int or None
        Tasks under way; two per thread of the cluster by default.
    dates : int
        Dates of a task.
    files : tuple of str
        Files of a disk that workers read, of which they must see the same.
    """

    resource: str | None = None
    wait: float = 600.0
    in_flight: int | None = None
    dates: int = 4
    files: tuple[str, ...] = ()


def run_units(
    client: Client,
    units: Iterator[Unit],
    plan: Plan,
    store: Store,
    block: BlockOptions,
    *,
    placement: Placement,
    watch: Watch,
) -> tuple[int, list[BaseException]]:
    """Do units on a cluster.

    Parameters
    ----------
    client : distributed.Client
        The cluster.
    units : iterator of Unit
        Taken one by one, as there is room for them.
    plan : Plan
        The job.
    store : Store
        Where to.
    block : BlockOptions
        Batch and device.
    placement : Placement
        Where and how much at a time.
    watch : Watch
        Told what happens.

    Returns
    -------
    lacking : int
        Shards made without some of their scenes.
    failures : list of exceptions
        One per unit or row that could not be made.

    Raises
    ------
    StoreError, ModelError
        If there is no use in going on.
    ClusterError
        If the cluster is gone.
    """
    name = f"glaciercube-{watch.name}"
    witnesses = Witnesses.of(plan)
    job = worker.Job(
        pack_model(plan.model),
        block,
        witnesses,
        store.handle(),
        Carried.capture(Access(plan.scenes.signing).variable),
        Paths.here(None if "://" in plan.store.path else plan.store.path, placement.files),
    )
    plugins = [DevicePlugin(watch.name), worker.JobPlugin(name, Versions.here(), pickle.dumps(job))]
    with registered(client, plugins):
        # Asked now: only with the plugin's help do workers know of their devices.
        crew = Crew(client, predict_resources(client, placement.resource, block.device))
        driver = _Driver(client, crew, plan, store, watch, placement=placement, shared=witnesses.shared)
        client.subscribe_topic("all", driver.heard)
        try:
            return driver.run(units)
        finally:
            client.unsubscribe_topic("all")


class _Driver:
    """Keeps a bounded number of units under way, and commits what workers wrote."""

    def __init__(
        self,
        client: Client,
        crew: Crew,
        plan: Plan,
        store: Store,
        watch: Watch,
        *,
        placement: Placement,
        shared: tuple[str, ...],
    ) -> None:
        self.client, self.crew, self.plan, self.store, self.watch = client, crew, plan, store, watch
        self.placement, self.name, self.dates = placement, f"glaciercube-{watch.name}", placement.dates
        self.ended: queue.SimpleQueue[Future[Any]] = queue.SimpleQueue()
        self.pending: dict[Future[Any], Task] = {}
        # Units whose workers died, to be tried once more, alone: a worker takes all with it that wait there.
        self.suspects: list[Task] = []
        self.alone = False
        # Units that came to a worker which is not fit for them.
        self.again: list[Task] = []
        self.submitted = 0
        self.batch = Batch(store)
        self.shared = shared
        self.lacking = 0
        self.failures: list[BaseException] = []
        self._alive = time.monotonic()

    def run(self, units: Iterator[Unit]) -> tuple[int, list[BaseException]]:
        """Do units."""
        ready = (
            task for unit in _prepared(units, self._prepare) for task in tasks(self.plan, unit, self.dates, self.shared)
        )
        try:
            while True:
                room = max(0, self._room() - len(self.pending))
                again, self.again = self.again, []
                for task in islice(chain(again, ready), max(room, len(again))):
                    self._submit(task)
                if not self.pending and self.suspects:
                    self.alone = True
                    self._submit(self.suspects.pop())
                if not self.pending:
                    break
                self._take()
                self.batch.commit_if_due()
        except BaseException:
            # Ctrl-C, a full disk: what was written whole is kept, the rest is done by the next run.
            self._stop()
            raise
        self.batch.commit()
        return self.lacking, self.failures

    def heard(self, event: tuple[float, Any]) -> None:
        """Take what the scheduler tells."""
        message = event[1]
        if isinstance(message, dict) and message.get("action") == "remove-worker" and not message.get("expected"):
            self.watch.lost(str(message.get("worker", "")))

    def _room(self) -> int:
        """Units that may be under way: memory does not grow with the region."""
        if self.placement.in_flight is not None:
            return self.placement.in_flight
        return _PER_THREAD * self.crew.threads

    def _prepare(self, units: list[Unit]) -> None:
        labels = self.plan.labels
        self.store.prepare((labels[row], unit.block) for unit in units for row in unit.rows)

    def _submit(self, task: Task) -> None:
        unit, submit = task.unit, partial(self.client.submit, pure=False)
        # Keys are tuples by which dask sees groups of like tasks.
        self.submitted += 1
        place = (self.name, *unit.block, unit.rows[0], self.submitted)
        needs, packed = self.crew.needs or None, pickle.dumps(task)
        if unit.skip:
            # Nothing is predicted: any worker will do.
            future = submit(worker.do, self.name, packed, key=("glaciercube-unit", *place))
        elif self.crew.alike:
            # dask moves tasks, and then their input, to workers that have less to do: a unit in one task stays.
            little = dict.fromkeys(self.crew.needs, _LITTLE) or None
            future = submit(worker.do, self.name, packed, key=("glaciercube-unit", *place), resources=little)
        else:
            # Those that may not predict read for those that may: the input travels, once.
            inputs = submit(worker.read, self.name, packed, key=("glaciercube-read", *place))
            outputs = submit(
                worker.predict, self.name, inputs, key=("glaciercube-predict", *place), resources=needs, priority=1
            )
            future = submit(worker.write, self.name, outputs, key=("glaciercube-write", *place), priority=2)
        self.pending[future] = task
        future.add_done_callback(self.ended.put)
        self.watch.started(unit)

    def _take(self) -> None:
        """Take what has ended, or look whether anything still can."""
        try:
            future = self.ended.get(timeout=_LOOK)
        except queue.Empty:
            self._see_that_it_lives()
            return
        self._alive = time.monotonic()
        task = self.pending.pop(future)
        if future.status == "finished":
            self._keep(future.result())
        elif future.status == "error":
            self._fail(task, future.exception())
        else:
            raise self._gone()
        future.release()

    def _keep(self, result: worker.Result) -> None:
        if result.written is not None:
            self.batch.add(result.written)
        self.lacking += result.lacking
        for row, error in result.failures:
            self.failures.append(error)
            self.watch.missed(replace(result.unit, rows=(row,)), error)
        self.watch.finished(result.unit, result.steps)

    def _fail(self, task: Task, error: BaseException) -> None:
        if isinstance(error, KilledWorker) and not self.alone:
            self.suspects.append(task)
            return
        if isinstance(error, worker.UnfitError):
            if self.crew.send_away(error.worker):
                self.watch.say(f"{error.problem}: it is sent away")
            self.again.append(task)
            return
        if isinstance(error, KilledWorker):
            workers = error.allowed_failures + 1
            error = ClusterError(
                f"{workers} worker{'s' * (workers > 1)} died of it, the last of them {error.last_worker.address}",
                "give workers more memory, or use smaller shards or fewer dates at a time",
            )
        elif not isinstance(error, ReadError):
            raise error
        self.failures.append(error)
        self.watch.missed(task.unit, error)

    def _see_that_it_lives(self) -> None:
        if self.client.status != "running":
            raise self._gone()
        if self.crew.capable:
            self._alive = time.monotonic()
        elif time.monotonic() - self._alive > self.placement.wait:
            which = (
                f" with the resource {', '.join(self.crew.needs)}" if self.crew.needs and self.client.nthreads() else ""
            )
            raise ClusterError(
                f"the cluster has had no worker{which} for {self.placement.wait:g} s",
                f"start workers{which}, then run again: the rest was written and only this is computed",
            )

    def _gone(self) -> ClusterError:
        return ClusterError(
            "the connection to the scheduler was lost", "run again: what was written is kept and the rest is computed"
        )

    def _stop(self) -> None:
        """Take what has ended, drop the rest."""
        pending, self.pending = list(self.pending), {}
        if self.client.status == "running":
            ended = [future for future in pending if future.status == "finished"]
            self.client.cancel([future for future in pending if future.status != "finished"], force=True)
            for result in self.client.gather(ended, errors="skip"):
                self._keep(result)
        self.batch.commit()


def _prepared(units: Iterator[Unit], prepare: Callable[[list[Unit]], None]) -> Iterator[Unit]:
    while some := list(islice(units, _PREPARED)):
        prepare(some)
        yield from some
