"""What workers do of a run: the job comes to each of them once, and its units are done by the job's name."""

from __future__ import annotations

import pickle
import threading
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from distributed import Worker, WorkerPlugin, get_worker

from glaciercube.campaign.allocator import give_memory_back
from glaciercube.campaign.kernel import Inputs, Kernel, Outputs
from glaciercube.campaign.lacking import Witnesses
from glaciercube.campaign.plan import Unit
from glaciercube.campaign.task import Step, Task
from glaciercube.cluster import Paths, Versions
from glaciercube.devices import device_here
from glaciercube.errors import ClusterError, ReadError
from glaciercube.inference import BlockOptions
from glaciercube.models.registry import PackedModel, unpack_model
from glaciercube.reading.carried import Carried
from glaciercube.store import Handle, Written

__all__ = ["Job", "JobPlugin", "Result", "UnfitError", "do", "predict", "read", "write"]


@dataclass(frozen=True)
class Job:
    """What every worker gets, once.

    Attributes
    ----------
    model : PackedModel
        With what, and its hash.
    block : BlockOptions
        Batch and device.
    witnesses : Witnesses
        Of the plan.
    handle : Handle
        Where to.
    carried : Carried
        The driver's settings and credentials.
    paths : Paths
        What must be seen from everywhere.
    """

    model: PackedModel
    block: BlockOptions
    witnesses: Witnesses = field(repr=False)
    handle: Handle = field(repr=False)
    carried: Carried
    paths: Paths = field(repr=False)


@dataclass(frozen=True)
class Result:
    """What comes back of a unit.

    Attributes
    ----------
    written : Written or None
        To be committed.
    unit : Unit
        With the rows that were made.
    lacking : int
        How many of them were made without some scenes.
    failures : tuple of (row, ReadError)
        Rows that were not made.
    steps : tuple of Step
        How it went.
    """

    written: Written | None
    unit: Unit
    lacking: int
    failures: tuple[tuple[int, ReadError], ...]
    steps: tuple[Step, ...]


class UnfitError(ClusterError):
    """A worker that came later has other versions or other files; it does nothing.

    Attributes
    ----------
    worker : str
        Its address.
    """

    worker: str = ""


_jobs: dict[str, tuple[Versions, bytes]] = {}
_kernels: dict[str, tuple[Kernel, Job]] = {}
_lock = threading.Lock()


class JobPlugin(WorkerPlugin):
    """Brings the job to every worker, also to those that come later.

    Parameters
    ----------
    name : str
        Of the run.
    versions : Versions
        The driver's: what it pickled is opened with the same ones only.
    job : bytes
        A pickled `Job`.
    """

    def __init__(self, name: str, versions: Versions, job: bytes) -> None:
        self.name, self._job = name, (versions, job)

    def setup(self, worker: Worker) -> None:  # noqa: ARG002 - dask's protocol
        """Keep it; it is unpacked by the first task, since that takes longer than a worker may be deaf."""
        _jobs[self.name] = self._job

    def teardown(self, worker: Worker) -> None:  # noqa: ARG002 - dask's protocol
        """Forget it."""
        with _lock:
            _jobs.pop(self.name, None)
            _kernels.pop(self.name, None)


def do(name: str, task: bytes) -> Result:
    """A whole unit, from the first byte read to the last one written: nothing of it travels."""
    return write(name, predict(name, read(name, task)))


def read(name: str, task: bytes) -> Inputs:
    """Its first step, of a pickled `Task`: what is not fit for the run may not be able to open it, and must say so."""
    kernel, _ = _kernel(name)
    some: Task = pickle.loads(task)  # noqa: S301 - made by our own driver
    return kernel.read(some)


def predict(name: str, inputs: Inputs) -> Outputs:
    """Its second step, on the device of this worker."""
    return _kernel(name)[0].predict(inputs, device_here())


def write(name: str, outputs: Outputs) -> Result:
    """Its last step."""
    kernel, job = _kernel(name)
    written, steps = kernel.write(outputs, job.handle.write)
    return Result(written, outputs.task.unit, sum(map(bool, outputs.missing)), outputs.failures, steps)


def _kernel(name: str) -> tuple[Kernel, Job]:
    with _lock:
        if name not in _kernels:
            give_memory_back()
            versions, pickled = _jobs[name]
            _see_that_it_fits(versions)
            job: Job = pickle.loads(pickled)  # noqa: S301 - made by our own driver
            _see_that_it_sees(job.paths)
            recent = get_worker().state.nthreads + 1
            # Credentials and settings are taken up where a graph is built; the driver's count here.
            settings: Any = partial(job.carried.applied, {})
            kernel = Kernel(unpack_model(job.model), job.block, job.witnesses, recent, settings)
            _kernels[name] = kernel, job
        return _kernels[name]


def _see_that_it_fits(versions: Versions) -> None:
    different = versions.difference(Versions.here())
    if different is not None:
        package, theirs, own = different
        raise _unfit(
            f"has {package} {own} and the run has {theirs}",
            "install the same versions on all machines, such as by one constraints file or image",
        )


def _see_that_it_sees(paths: Paths) -> None:
    if unseen := paths.unseen():
        raise _unfit(
            f"does not see {unseen}, which is a path of the run's machine",
            "use a bucket (s3://...) or a disk that all workers share at the same path",
        )


def _unfit(problem: str, remedy: str) -> UnfitError:
    address = str(get_worker().address)
    error = UnfitError(f"the worker {address} {problem}", remedy)
    error.worker = address
    return error
