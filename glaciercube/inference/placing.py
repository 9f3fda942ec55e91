"""Where the blocks of a lazy prediction are computed on a cluster."""

from __future__ import annotations

import pickle
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from glaciercube.cluster import check_versions, predict_resources, registered
from glaciercube.models.registry import PackedModel, keep_packed, own_models, pack_model

if TYPE_CHECKING:
    from distributed import Client, Worker

__all__ = ["CpuFallbackWarning", "on_gpus", "tell_of_cpu", "worker_device"]

# What a task takes of the resource: threads bound their number, and the device's turn is kept by the kernel.
_LITTLE: Final = 2.0**-10

# Workers that have told.
_told: set[str] = set()


class CpuFallbackWarning(UserWarning):
    """Predictions are made on CPUs though the cluster has GPUs."""


@contextmanager
def on_gpus(client: Client, *, resource: str | None = None) -> Iterator[None]:
    """Compute lazy predictions on a cluster's workers with GPUs, from the first read to the last write.

    Whatever is computed within the context (``prediction.to_zarr(...)``, ``.compute()``, ``.load()``) runs there as a
    whole, so that nothing travels to other workers; without GPUs it runs on all. Each process has a device of its own.
    Annotations of single tasks would do no good: they are lost where dask fuses tasks.

    Weights of models that were loaded from folders are sent to all workers, also to those that come later, and known
    there by their hash.

    Parameters
    ----------
    client : distributed.Client
        The cluster.
    resource : str or None
        As in `glaciercube.cluster.ClusterOptions`.

    Raises
    ------
    ClusterError
        If no worker has the resource, or one has other versions of what decides pixels.

    Examples
    --------
    >>> with on_gpus(client):  # doctest: +SKIP
    ...     predict(cube, model).to_zarr("s3://bucket/prediction.zarr")
    """
    import dask

    from glaciercube.devices import DevicePlugin

    check_versions(client)
    name = secrets.token_hex(4)
    plugins: list[Any] = [DevicePlugin(name), *(_model_plugin(name, pack_model(model)) for model in own_models())]
    with registered(client, plugins):
        needs = predict_resources(client, resource, None)
        get: Any = partial(client.get, resources=dict.fromkeys(needs, _LITTLE) or None)
        get.__self__ = client  # by which xarray knows that workers do not share its locks
        with dask.config.set(scheduler=get):
            yield


def worker_device() -> str | None:
    """The device that this task's worker was given; None without a worker, or without one."""
    if _worker() is None:
        return None
    from glaciercube.devices import device_here

    return device_here()


def tell_of_cpu() -> None:
    """Tell the cluster's clients, once per worker, if a prediction falls back to a CPU while there are GPUs."""
    worker = _worker()
    if worker is None or worker.address in _told:
        return
    _told.add(worker.address)
    from distributed.utils import sync

    found: Any = sync(worker.loop, worker.scheduler.identity, n_workers=-1)
    with_gpu = {address for address, other in found["workers"].items() if other["resources"].get("GPU", 0)}
    if not with_gpu:
        return
    if worker.address in with_gpu:
        problem = "a worker with the resource GPU predicts on its CPU, since torch finds no CUDA there"
        remedy = "install torch with CUDA on it, or choose BlockOptions(device='cpu')"
    else:
        problem = "predictions are made on the CPUs of workers without CUDA, and the cluster has workers with GPUs"
        remedy = "compute them within glaciercube.inference.on_gpus(client), or choose BlockOptions(device='cpu')"
    # As `distributed.worker.warn`, but the worker itself has nobody to tell.
    text, kind = pickle.dumps(f"{problem}: {remedy}."), pickle.dumps(CpuFallbackWarning)
    worker.log_event("warn", {"message": text, "category": kind})


def _worker() -> Worker | None:
    distributed = sys.modules.get("distributed")
    if distributed is None:
        return None
    try:
        worker: Worker = distributed.get_worker()
    except ValueError:
        return None
    return worker


def _model_plugin(run: str, packed: PackedModel) -> Any:
    from distributed import WorkerPlugin

    class ModelPlugin(WorkerPlugin):
        """Brings a model to every worker; it is loaded by the first task that needs it."""

        name = f"glaciercube-model-{packed.hash[:16]}-{run}"

        def setup(self, worker: Worker) -> None:  # noqa: ARG002 - dask's protocol
            keep_packed(packed)

    return ModelPlugin()
