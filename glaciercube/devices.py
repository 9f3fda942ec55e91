"""What worker processes are given: a device of their own, and deafness to the terminal."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
import threading
from pathlib import Path
from typing import Any

from distributed import Status, Worker, WorkerPlugin, get_worker

__all__ = ["DevicePlugin", "Undisturbed", "device_here"]


class DevicePlugin(WorkerPlugin):
    """Gives each worker process with CUDA a device of its own, and the resource ``GPU``; others get neither.

    A lock on a file holds the device: the system gives it back when a process dies, in whatever way.

    Parameters
    ----------
    run : str
        By what the locks of one run are told from those of others.

    Attributes
    ----------
    device : str or None
        On a worker: ``"cuda:0"`` and so on; None where it got none.
    """

    name = "glaciercube-device"

    def __init__(self, run: str) -> None:
        self.run = run
        self.device: str | None = None
        self._lock: int | None = None

    async def setup(self, worker: Worker) -> None:
        """Claim a device."""
        claimed = await asyncio.to_thread(_claim, self.run)
        if claimed is not None:
            self.device, self._lock = claimed
            await worker.set_resources(GPU=1)

    async def teardown(self, worker: Worker) -> None:
        """Give it back."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = self.device = None
            # One that ends has nobody to tell.
            if worker.status is Status.running:
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
        plugin = get_worker().plugins.get(DevicePlugin.name)
    except ValueError:
        return None
    return plugin.device if isinstance(plugin, DevicePlugin) else None


def _claim(run: str) -> tuple[str, int] | None:
    """The first device that no other process of this run on this machine has, and the lock that says so."""
    import torch

    if not torch.cuda.is_available():
        return None
    import fcntl

    for index in range(torch.cuda.device_count()):
        uuid: Any = getattr(torch.cuda.get_device_properties(index), "uuid", index)
        path = Path(tempfile.gettempdir()) / f"glaciercube-{run}-{uuid}.lock"
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
        else:
            return f"cuda:{index}", lock
    return None
