"""What worker processes are given: a device of their own, and deafness to the terminal."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from distributed import Status, Worker, WorkerPlugin, get_worker

__all__ = ["DevicePlugin", "Undisturbed", "device_here"]


@dataclass
class _Held:
    """A worker's device, which all runs on it share."""

    device: str | None = None
    lock: int | None = None
    # The worker had no resource of its own, and was given one.
    gave: bool = False
    runs: set[str] = field(default_factory=set)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


_held: WeakKeyDictionary[Worker, _Held] = WeakKeyDictionary()


class DevicePlugin(WorkerPlugin):
    """Gives each worker process with CUDA a device of its own, and the resource ``GPU``; others get neither.

    A lock on a file holds the device: the system gives it back when a process dies, in whatever way. All runs on a
    worker share its device, until the last of them ends. A resource ``GPU`` that a worker has by itself is left alone.

    Parameters
    ----------
    run : str
        By what the plugin of one run is told from those of others on the same scheduler.

    Attributes
    ----------
    name : str
        By which dask knows it.
    """

    def __init__(self, run: str) -> None:
        self.run, self.name = run, f"glaciercube-device-{run}"

    async def setup(self, worker: Worker) -> None:
        """Claim a device, if no other run has."""
        held = _held.setdefault(worker, _Held())
        async with held.turn:
            held.runs.add(self.run)
            if held.lock is not None:
                return
            claimed = await asyncio.to_thread(_claim, worker.scheduler.address)
            if claimed is None:
                return
            held.device, held.lock = claimed
            if not worker.state.total_resources.get("GPU"):
                held.gave = True
                await worker.set_resources(GPU=1)

    async def teardown(self, worker: Worker) -> None:
        """Give it back, if no other run has it."""
        held = _held.setdefault(worker, _Held())
        async with held.turn:
            held.runs.discard(self.run)
            if held.runs or held.lock is None:
                return
            os.close(held.lock)
            gave, held.lock, held.device, held.gave = held.gave, None, None, False
            # One that ends has nobody to tell.
            if gave and worker.status is Status.running:
                await worker.set_resources(GPU=0)


class Undisturbed(WorkerPlugin):
    """Lets workers of this machine miss the Ctrl-C that a terminal sends to them, too: the driver ends them."""

    name = "glaciercube-undisturbed"

    def setup(self, worker: Worker) -> None:
        """Ignore it, where the worker has a process of its own."""
        if worker.nanny is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.SIG_IGN)


def device_here() -> str | None:
    """The device that this task's worker was given; None where there is none, or no worker."""
    try:
        held = _held.get(get_worker())
    except ValueError:
        return None
    return held.device if held is not None else None


def _claim(scheduler: str) -> tuple[str, int] | None:
    """The first device that no other process of this cluster on this machine has, and the lock that says so."""
    import torch

    if not torch.cuda.is_available():
        return None
    import fcntl

    cluster = hashlib.sha256(scheduler.encode()).hexdigest()[:16]
    for index in range(torch.cuda.device_count()):
        uuid: Any = getattr(torch.cuda.get_device_properties(index), "uuid", index)
        path = Path(tempfile.gettempdir()) / f"glaciercube-{os.getuid()}-{cluster}-{uuid}.lock"
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
        else:
            return f"cuda:{index}", lock
    return None
