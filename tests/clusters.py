"""Clusters of worker processes for tests."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import dask
from distributed import Client, LocalCluster
from distributed.utils import get_mp_context

from glaciercube.cluster import address_of

__all__ = ["forked", "local", "moved", "other_worker", "preloaded", "workers_of"]


# A process that forks from one that has imported this begins at once; also, more deaths in the same time.
_PRELOAD: Final = ["distributed", "torch", "odc.stac", "icechunk", "obstore", "glaciercube.campaign.distributed_run"]


def forked() -> Any:
    """Workers that are begun within this fork from a process that has imported what they need."""
    return dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"})


def preloaded() -> Any:
    """The multiprocessing context of such processes; ask within `forked`."""
    found = get_mp_context()
    found.set_forkserver_preload(_PRELOAD)
    return found


@contextmanager
def local(workers: int, **options: Any) -> Iterator[Client]:
    """A cluster of processes with one thread each; all have the resources that are given."""
    with forked():
        preloaded()
        cluster = LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=":0", **options)
        with cluster, Client(cluster, set_as_default=False) as client:
            yield client


def workers_of(client: Client) -> set[str]:
    """Addresses of the workers that are there now."""
    return set(client.scheduler_info(n_workers=-1)["workers"])


def moved(client: Client) -> dict[str, int]:
    """Bytes that travelled from worker to worker for our tasks until now, by the name of what travelled."""

    def received(dask_worker: Any) -> dict[str, int]:
        found: dict[str, int] = {}
        for transfer in dask_worker.transfer_incoming_log:
            for key, size in transfer["keys"].items():
                if isinstance(key, tuple):
                    found[key[0]] = found.get(key[0], 0) + size
        return found

    total: dict[str, int] = {}
    for found in client.run(received).values():
        for name, size in found.items():
            total[name] = total.get(name, 0) + size
    return total


@contextmanager
def other_worker(client: Client, *flags: str, within: Sequence[str] = ()) -> Iterator[str]:
    """One more worker, without resources; perhaps within another program, which it replaces."""
    before = workers_of(client)
    command = [sys.executable, "-m", "distributed.cli.dask_worker", address_of(client), "--nthreads", "1"]
    with subprocess.Popen([*within, *command, "--no-dashboard", *flags], stderr=subprocess.DEVNULL) as worker:
        try:
            client.wait_for_workers(len(before) + 1, timeout=60)
            (address,) = workers_of(client) - before
            yield address
        finally:
            worker.terminate()
