"""Lazy predictions on a cluster: computed on the workers with GPUs, by weights that are known by their hash."""

from __future__ import annotations

import pickle
import shutil
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr
from clusters import local, other_worker
from distributed import Client, WorkerPlugin

from glaciercube.errors import ClusterError
from glaciercube.inference import BlockOptions, CpuFallbackWarning, on_gpus, predict
from glaciercube.models import load_model
from glaciercube.models.registry import save_model

OPTICAL = ("blue", "green", "red", "nir", "swir16", "swir22")
CPU = BlockOptions(device="cpu")


@pytest.fixture(scope="module")
def mixed() -> Iterator[tuple[Client, str, str]]:
    """Two workers, of which the first has the resource GPU; they count blocks and loads."""

    class Counts(WorkerPlugin):  # defined here, so that it travels by value
        def setup(self, worker: Any) -> None:
            from glaciercube.inference import block
            from glaciercube.models.base import Model

            worker.blocks = worker.loads = 0
            compute, make = block.predict_block, Model.from_module

            def counted(*arguments: Any) -> Any:
                worker.blocks += 1
                return compute(*arguments)

            def loaded(*arguments: Any) -> Any:
                worker.loads += 1
                return make(*arguments)

            block.predict_block = counted  # type: ignore[assignment]
            Model.from_module = loaded  # type: ignore[method-assign, assignment]

    with local(1, resources={"GPU": 1}) as client:
        (gpu,) = client.scheduler_info(n_workers=-1)["workers"]
        with other_worker(client) as other:
            client.register_plugin(Counts(), name="counts")
            yield client, gpu, other


def counts(client: Client) -> dict[str, tuple[int, int]]:
    """Blocks and loads by worker, since they were last asked for."""

    def taken(dask_worker: Any) -> tuple[int, int]:
        found = dask_worker.blocks, dask_worker.loads
        dask_worker.blocks = dask_worker.loads = 0
        return found

    return dict(client.run(taken))


def cube_of(dates: int = 4, side: int = 64) -> xr.Dataset:
    rng = np.random.default_rng(1)
    data = {name: (("time", "y", "x"), rng.random((dates, side, side), dtype=np.float32)) for name in OPTICAL}
    coords = {"time": np.arange(dates), "y": -20.0 * np.arange(side), "x": 20.0 * np.arange(side)}
    return xr.Dataset(data, coords=coords).chunk(time=1)


def test_a_lazy_prediction_is_written_by_the_workers_with_gpus(tmp_path: Path, mixed: tuple[Client, str, str]) -> None:
    client, gpu, other = mixed
    folder = save_model(load_model("fusion-unet"), tmp_path / "mine")
    model = load_model(folder)
    lazy = predict(cube_of(), model, block=32, dates=1, options=CPU)
    eager = lazy.compute()
    # The workers do not have the folder, and the graph has not the weights.
    shutil.rmtree(folder)
    assert len(pickle.dumps(model)) < 1000
    counts(client)
    with on_gpus(client):
        lazy.to_zarr(tmp_path / "a.zarr", zarr_format=3, consolidated=False)
    assert counts(client) == {gpu: (16, 1), other: (0, 0)}
    xr.testing.assert_identical(xr.open_zarr(tmp_path / "a.zarr", consolidated=False).load(), eager)
    # Loaded once, however often it is used.
    with on_gpus(client):
        xr.testing.assert_identical(lazy.compute(), eager)
    assert counts(client) == {gpu: (16, 0), other: (0, 0)}
    # Nothing is left behind.
    assert dask.config.get("scheduler", None) is None
    assert not [name for name in client.run(lambda dask_worker: list(dask_worker.plugins))[gpu] if "glacier" in name]


def test_falling_back_to_cpus_is_told(mixed: tuple[Client, str, str]) -> None:
    client, *_ = mixed
    lazy = predict(cube_of(4), load_model("ndsi"), block=16, dates=1)
    counts(client)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for _ in range(2):
            with dask.config.set(scheduler=client.get):
                lazy.compute()
        latest = time.monotonic() + 10
        while len(told) < 2 and time.monotonic() < latest:
            time.sleep(0.05)
    # Without the context they run everywhere ...
    assert min(blocks for blocks, _ in counts(client).values()) > 0
    # ... and each worker says so once.
    assert {each.category for each in told} == {CpuFallbackWarning}
    assert sorted(str(each.message).partition(":")[2] for each in told) == [
        " compute them within glaciercube.inference.on_gpus(client), or choose BlockOptions(device='cpu').",
        " install torch with CUDA on it, or choose BlockOptions(device='cpu').",
    ]


def test_a_resource_that_nobody_has_is_refused(mixed: tuple[Client, str, str]) -> None:
    client, gpu, _ = mixed
    with pytest.raises(ClusterError, match="no worker has the resource TPU"), on_gpus(client, resource="TPU"):
        pass
    assert not [name for name in client.run(lambda dask_worker: list(dask_worker.plugins))[gpu] if "glacier" in name]
