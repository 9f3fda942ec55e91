"""Where tasks run, as the user says it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any, Final

from glaciercube.errors import require

__all__ = ["ClusterOptions"]

_KINDS: Final = ("threads", "local", "gateway", "slurm", "kubernetes")


@dataclass(frozen=True)
class ClusterOptions:
    """Where units are run.

    Attributes
    ----------
    kind : str
        ``threads`` (of this process), ``local`` (worker processes of this machine), ``gateway`` (Dask Gateway),
        ``slurm`` (dask-jobqueue), ``kubernetes`` (dask-kubernetes operator), or a scheduler's address
        (``tcp://host:8786``, ``tls://...``).
    workers : int or None
        Workers to ask for; by default as many as there are cores (``local``) or one. Not used with an address.
    threads : int
        Threads of a worker (``local``, ``slurm``, ``kubernetes``).
    memory : str or None
        Memory of a worker, such as ``8GiB`` (``local``, ``slurm``, ``kubernetes``).
    resource : str or None
        Predict only on workers that have this resource, 1 per prediction. By default ``GPU`` where a worker has
        CUDA: each process then gets a device of its own, and those that get none only read and write.
    wait : float
        Seconds to wait for the first worker, and for another one when all are gone.
    options : dict
        Keywords of LocalCluster, SLURMCluster or KubeCluster; of Gateway (``address``, ``proxy_address``, ``auth``)
        and of the cluster that it starts. They are not kept in the store.
    """

    kind: str = "threads"
    workers: int | None = None
    threads: int = 1
    memory: str | None = None
    resource: str | None = None
    wait: float = 600.0
    options: dict[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        known = self.kind in _KINDS or "://" in self.kind
        require(known, f"there is no cluster {self.kind!r}", f"give {', '.join(_KINDS)} or tcp://host:port")
        for name, value in (("workers", self.workers), ("threads", self.threads), ("wait", self.wait)):
            require(value is None or value > 0, f"{name} {value} is too few", "give 1 or more")

    @property
    def processes(self) -> int:
        """Worker processes that are asked for."""
        return self.workers or ((os.cpu_count() or 1) if self.kind == "local" else 1)
