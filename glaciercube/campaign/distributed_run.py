"""Units on a cluster: three tasks each, their data staying where it is, and one driver that says what is done."""

from __future__ import annotations

import pickle
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from distributed import KilledWorker, Worker, WorkerPlugin, get_worker

from glaciercube.campaign.events import Watch
from glaciercube.campaign.kernel import Inputs, Kernel, Outputs, Step, Task, tasks
from glaciercube.campaign.lacking import Witnesses
from glaciercube.campaign.plan import Plan, Unit
from glaciercube.cluster import everywhere, predict_resources
from glaciercube.devices import DevicePlugin
from glaciercube.errors import ClusterError, ReadError
from glaciercube.inference import BlockOptions
from glaciercube.models.registry import PackedModel, pack_model, unpack_model
from glaciercube.reading.access import Access
from glaciercube.reading.carried import Carried
from glaciercube.store import Handle, Store, Written

if TYPE_CHECKING:
    from distributed import Client, Future

__all__ = ["Placement", "run_units"]

# A batch of marks is committed when it has so many shards, or is so old in seconds.
_SHARDS: Final = 64
_SECONDS: Final = 15.0
# Units whose old marks are withdrawn together.
_PREPARED: Final = 256
# How often the driver looks up when nothing ends, seconds.
_LOOK: Final = 1.0
_PER_THREAD: Final = 2


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
    """

    resource: str | None = None
    wait: float = 600.0
    in_flight: int | None = None
    dates: int = 4


@dataclass(frozen=True)
class _Job:
    """What every worker gets, once."""

    model: PackedModel
    block: BlockOptions
    witnesses: Witnesses = field(repr=False)
    handle: Handle = field(repr=False)
    carried: Carried


@dataclass(frozen=True)
class _Result:
    """What comes back of a unit."""

    written: Written | None
    unit: Unit
    lacking: int
    failures: tuple[tuple[int, ReadError], ...]
    steps: tuple[Step, ...]


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
    everywhere(lambda: client.register_plugin(DevicePlugin(watch.name)))
    witnesses = Witnesses.of(plan)
    job = _Job(
        pack_model(plan.model),
        block,
        witnesses,
        store.handle(),
        Carried.capture(Access(plan.scenes.signing).variable),
    )
    plugin = _JobPlugin(name, pickle.dumps(job))
    everywhere(lambda: client.register_plugin(plugin, name=name))
    driver = _Driver(client, plan, store, watch, placement, name)
    driver.shared = witnesses.shared
    client.subscribe_topic("all", driver.heard)
    try:
        needs = predict_resources(client, placement.resource, block.device)
        return driver.run(units, needs)
    finally:
        client.unsubscribe_topic("all")
        if client.status == "running":
            for plugged in (name, DevicePlugin.name):
                # A worker that dies meanwhile has forgotten it, too.
                with suppress(OSError):
                    client.unregister_worker_plugin(plugged)


class _Driver:
    """Keeps a bounded number of units under way, and commits what workers wrote."""

    def __init__(self, client: Client, plan: Plan, store: Store, watch: Watch, placement: Placement, name: str) -> None:
        self.client, self.plan, self.store, self.watch = client, plan, store, watch
        self.placement, self.name, self.dates = placement, name, placement.dates
        self.ended: queue.SimpleQueue[Future[Any]] = queue.SimpleQueue()
        self.pending: dict[Future[Any], Task] = {}
        # Units whose workers died, to be tried once more, alone: a worker takes all with it that wait there.
        self.suspects: list[Task] = []
        self.alone = False
        self.written: list[Written] = []
        self.shared: tuple[str, ...] = ()
        self.lacking = 0
        self.failures: list[BaseException] = []
        self._committed = self._alive = time.monotonic()
        self._threads = (0.0, 1)

    def run(self, units: Iterator[Unit], needs: dict[str, float]) -> tuple[int, list[BaseException]]:
        """Do units."""
        ready = (
            task for unit in _prepared(units, self._prepare) for task in tasks(self.plan, unit, self.dates, self.shared)
        )
        try:
            while True:
                room = self._room() - len(self.pending)
                for task in islice(ready, max(0, room)):
                    self._submit(task, needs)
                if not self.pending and self.suspects:
                    self.alone = True
                    self._submit(self.suspects.pop(), needs)
                if not self.pending:
                    break
                self._take()
                self._commit(_SHARDS, _SECONDS)
        except BaseException:
            # Ctrl-C, a full disk: what was written whole is kept, the rest is done by the next run.
            self._stop()
            raise
        self._commit(0, 0)
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
        asked, threads = self._threads
        if time.monotonic() - asked > _LOOK:
            # Workers come and go.
            threads = max(1, sum(self.client.nthreads().values()))
            self._threads = time.monotonic(), threads
        return _PER_THREAD * threads

    def _prepare(self, units: list[Unit]) -> None:
        labels = self.plan.labels
        self.store.prepare((labels[row], unit.block) for unit in units for row in unit.rows)

    def _submit(self, task: Task, needs: dict[str, float]) -> None:
        unit, submit = task.unit, self.client.submit
        place = (self.name, *unit.block, unit.rows[0], int(self.alone))
        # Keys are tuples by which dask sees groups of like tasks.
        inputs = submit(_read, self.name, task, key=("glaciercube-read", *place), pure=False)
        outputs = submit(
            _predict, self.name, inputs, key=("glaciercube-predict", *place), resources=needs or None, pure=False
        )
        future = submit(_write, self.name, outputs, key=("glaciercube-write", *place), pure=False)
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

    def _keep(self, result: _Result) -> None:
        if result.written is not None:
            self.written.append(result.written)
        self.lacking += result.lacking
        for row, error in result.failures:
            self.failures.append(error)
            self.watch.missed(replace(result.unit, rows=(row,)), error)
        self.watch.finished(result.unit, result.steps)

    def _fail(self, task: Task, error: BaseException) -> None:
        if isinstance(error, KilledWorker) and not self.alone:
            self.suspects.append(task)
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
        if self.client.nthreads():
            self._alive = time.monotonic()
        elif time.monotonic() - self._alive > self.placement.wait:
            raise ClusterError(
                f"the cluster has had no worker for {self.placement.wait:g} s",
                "start workers, then run again: the rest was written and only this is computed",
            )

    def _gone(self) -> ClusterError:
        return ClusterError(
            "the connection to the scheduler was lost", "run again: what was written is kept and the rest is computed"
        )

    def _commit(self, shards: int, seconds: float) -> None:
        count = sum(len(written.marks) for written in self.written)
        if count and (count >= shards or time.monotonic() - self._committed >= seconds):
            # Left in place until it is said: an error here must not lose what a later attempt can still commit.
            self.store.commit(self.written)
            self.written = []
            self._committed = time.monotonic()
        elif not count:
            self._committed = time.monotonic()

    def _stop(self) -> None:
        """Take what has ended, drop the rest."""
        pending, self.pending = list(self.pending), {}
        if self.client.status == "running":
            ended = [future for future in pending if future.status == "finished"]
            self.client.cancel([future for future in pending if future.status != "finished"], force=True)
            for result in self.client.gather(ended, errors="skip"):
                self._keep(result)
        self._commit(0, 0)


def _prepared(units: Iterator[Unit], prepare: Callable[[list[Unit]], None]) -> Iterator[Unit]:
    while some := list(islice(units, _PREPARED)):
        prepare(some)
        yield from some


# On the workers.

_jobs: dict[str, bytes] = {}
_kernels: dict[str, tuple[Kernel, _Job]] = {}
_lock = threading.Lock()


class _JobPlugin(WorkerPlugin):
    """Brings the job to every worker, also to those that come later."""

    def __init__(self, name: str, job: bytes) -> None:
        self.name, self._job = name, job

    def setup(self, worker: Worker) -> None:  # noqa: ARG002 - dask's protocol
        """Keep it; it is unpacked by the first task, since that takes longer than a worker may be deaf."""
        _jobs[self.name] = self._job

    def teardown(self, worker: Worker) -> None:  # noqa: ARG002 - dask's protocol
        """Forget it."""
        with _lock:
            _jobs.pop(self.name, None)
            _kernels.pop(self.name, None)


def _kernel(name: str) -> tuple[Kernel, _Job]:
    with _lock:
        if name not in _kernels:
            job: _Job = pickle.loads(_jobs[name])  # noqa: S301 - made by our own driver
            recent = get_worker().state.nthreads + 1
            # Credentials and settings are taken up where a graph is built; the driver's count here.
            settings = partial(job.carried.applied, {})
            kernel = Kernel(unpack_model(job.model), job.block, job.witnesses, recent, settings)
            _kernels[name] = kernel, job
        return _kernels[name]


def _read(name: str, task: Task) -> Inputs:
    return _kernel(name)[0].read(task)


def _predict(name: str, inputs: Inputs) -> Outputs:
    plugin = get_worker().plugins.get(DevicePlugin.name)
    return _kernel(name)[0].predict(inputs, plugin.device if isinstance(plugin, DevicePlugin) else None)


def _write(name: str, outputs: Outputs) -> _Result:
    kernel, job = _kernel(name)
    written, steps = kernel.write(outputs, job.handle.write)
    return _Result(written, outputs.task.unit, sum(map(bool, outputs.missing)), outputs.failures, steps)
