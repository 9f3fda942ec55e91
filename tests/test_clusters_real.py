"""A job is the same on threads and on real clusters, reached by nothing but its `cluster:` setting."""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest
import xarray as xr
import yaml
from services import Gateway, Slurm

from glaciercube.simulate.world import World
from glaciercube.store import open_store

_GONE = 20.0  # seconds that processes have to end after their cluster was closed


def job(folder: Path, name: str, world: World, catalog: Path, cluster: Mapping[str, Any] | str) -> Path:
    """A configuration that writes ``NAME.zarr``."""
    content = {
        "region": {"bbox": list(world.region.bbox), "resolution": 20, "crs": str(world.region.geobox.crs)},
        "catalog": str(catalog),
        "time": "2021",
        "sensors": ["sentinel-2", "dem"],
        "model": "fusion-unet",
        "store": {"path": str(folder / f"{name}.zarr"), "shard": 64, "chunk": 32},
        "run": {"dates": 2},
        "cluster": cluster,
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def glaciercube(config: Path, environ: Mapping[str, str], *flags: str) -> subprocess.CompletedProcess[str]:
    """Run the job as a user does."""
    command = [str(Path(sys.executable).parent / "glaciercube"), "run", str(config), *flags]
    return subprocess.run(
        command, env={**os.environ, **environ}, cwd=config.parent, capture_output=True, text=True, check=False
    )


def marked(mark: str) -> list[str]:
    """Processes that were started with a mark in their environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("GLACIERCUBE_STARTED_BY") == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return found


def is_gone(left: Callable[[], list[str]]) -> None:
    """Wait until nothing is left."""
    latest = time.monotonic() + _GONE
    while left():
        assert time.monotonic() < latest, left()
        time.sleep(0.1)


@pytest.fixture(scope="module")
def on_threads(tmp_path_factory: pytest.TempPathFactory, world: World, catalog: Path) -> xr.Dataset:
    folder = tmp_path_factory.mktemp("threads")
    done = glaciercube(job(folder, "threads", world, catalog, "threads"), {}, "--quiet")
    assert done.returncode == 0, done.stderr
    return opened(folder / "threads.zarr")


def opened(path: Path) -> xr.Dataset:
    """What a store holds, but for how it was made."""
    return open_store(path).drop_vars("provenance", errors="ignore").drop_attrs().load()


def holds(config: Path, environ: Mapping[str, str], expected: xr.Dataset) -> None:
    """Run a job: it gives what is expected, and nobody says a word."""
    done = glaciercube(config, environ, "--quiet")
    # A warning, or a line of a library's, would stand here.
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("8 shards computed")
    xr.testing.assert_identical(opened(config.with_suffix(".zarr")), expected)


def test_worker_processes_give_what_threads_give(
    tmp_path: Path, world: World, catalog: Path, on_threads: xr.Dataset
) -> None:
    mark = secrets.token_hex(8)
    config = job(tmp_path, "local", world, catalog, {"kind": "local", "workers": 2})
    done = glaciercube(config, {"GLACIERCUBE_STARTED_BY": mark})
    assert done.returncode == 0
    # With the bar comes the place where to watch.
    assert re.search(r"dashboard: http://\S+:\d+/status", done.stderr), done.stderr
    xr.testing.assert_identical(opened(tmp_path / "local.zarr"), on_threads)
    is_gone(lambda: marked(mark))


def test_dask_gateway_gives_what_threads_give(
    tmp_path: Path, world: World, catalog: Path, on_threads: xr.Dataset, gateway_server: Gateway
) -> None:
    options = {"address": gateway_server.address, "proxy_address": gateway_server.proxy_address}
    config = job(tmp_path, "gateway", world, catalog, {"kind": "gateway", "workers": 2, "options": options})
    holds(config, gateway_server.environ, on_threads)
    is_gone(lambda: marked(gateway_server.mark))
    # The way in is written nowhere.
    password = gateway_server.environ["DASK_GATEWAY__AUTH__KWARGS__PASSWORD"]
    assert all(password.encode() not in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_slurm_gives_what_threads_give(
    tmp_path: Path, world: World, catalog: Path, on_threads: xr.Dataset, slurm_server: Slurm
) -> None:
    mark = secrets.token_hex(8)
    # Its one node is reached by the loopback interface only.
    options = {"interface": "lo", "log_directory": str(tmp_path / "logs"), "local_directory": str(tmp_path)}
    cluster = {"kind": "slurm", "workers": 2, "memory": "1GiB", "options": options}
    config = job(tmp_path, "slurm", world, catalog, cluster)
    holds(config, {**slurm_server.environ, "GLACIERCUBE_STARTED_BY": mark}, on_threads)
    assert len(list((tmp_path / "logs").glob("*.err"))) == 2
    is_gone(slurm_server.queue)
    is_gone(lambda: marked(mark))
