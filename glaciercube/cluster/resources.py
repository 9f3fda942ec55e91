"""Which workers may predict."""

from __future__ import annotations

from typing import TYPE_CHECKING

from glaciercube.errors import ClusterError

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["predict_resources"]


def predict_resources(client: Client, resource: str | None, device: str | None) -> dict[str, float]:
    """What a prediction asks of its worker.

    Parameters
    ----------
    client : distributed.Client
        With `glaciercube.devices.DevicePlugin`.
    resource : str or None
        As in `ClusterOptions`.
    device : str or None
        As in `glaciercube.inference.BlockOptions`.

    Returns
    -------
    dict
        Resource -> quantity; empty if any worker may predict.

    Raises
    ------
    ClusterError
        If no worker has what is asked for.
    """
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    wanted = resource or ("GPU" if device is None or device.startswith("cuda") else None)
    if wanted is None:
        return {}
    if any(worker["resources"].get(wanted, 0) >= 1 for worker in workers):
        return {wanted: 1}
    if resource is not None or device is not None:
        raise ClusterError(
            f"no worker has the resource {wanted}" + ("" if resource else ", since none has CUDA"),
            f"start workers with --resources {wanted}=1" if resource else "start workers with GPUs, or use device: cpu",
        )
    return {}
