"""Reaching a cluster: what does not fit is refused by name before anything runs."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from distributed import Client, LocalCluster

from glaciercube.cluster import (
    ClusterOptions,
    address_of,
    check_paths,
    check_versions,
    connect,
    predict_resources,
)
from glaciercube.config import parse_config
from glaciercube.devices import DevicePlugin, device_here
from glaciercube.errors import ClusterError, ConfigError


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    cluster = LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=":0")
    with cluster, Client(cluster, set_as_default=False) as client:
        yield client


_CONFIG = "region: {bbox: [7.9, 46.4, 8.1, 46.5], resolution: 20}\ncatalog: c.json\ntime: 2022\nstore: a.zarr\n"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", ClusterOptions()),
        ("cluster: local", ClusterOptions("local")),
        ("cluster: tcp://10.0.0.1:8786", ClusterOptions("tcp://10.0.0.1:8786")),
        (
            "cluster: {kind: slurm, workers: 4, options: {queue: gpu}}",
            ClusterOptions("slurm", workers=4, options={"queue": "gpu"}),
        ),
    ],
)
def test_one_setting_says_where_it_runs(text: str, wanted: ClusterOptions) -> None:
    config = parse_config(_CONFIG + text)
    assert config.cluster == wanted
    # It decides no pixel, and may hold a way in.
    assert "cluster" not in config.as_dict()


def test_an_unknown_cluster_is_refused_with_its_line() -> None:
    with pytest.raises(ConfigError, match=r"there is no cluster 'lokal': give threads, local, gateway"):
        parse_config(_CONFIG + "cluster: lokal")
    with pytest.raises(ConfigError, match=r"line 5: unknown key 'cluster.worker'.*did you mean workers"):
        parse_config(_CONFIG + "cluster: {kind: local, worker: 3}")


@pytest.mark.parametrize(
    ("kind", "module", "package"),
    [
        ("gateway", "dask_gateway", "dask-gateway"),
        ("slurm", "dask_jobqueue", "dask-jobqueue"),
        ("kubernetes", "dask_kubernetes.operator", "dask-kubernetes"),
    ],
)
def test_a_missing_package_is_named(kind: str, module: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    told = rf"needs {package}, .*pip install 'glaciercube\[cluster\]'"
    with pytest.raises(ConfigError, match=told), connect(ClusterOptions(kind)):
        pass


def test_no_scheduler_is_an_error_of_its_own() -> None:
    import dask

    with (
        dask.config.set({"distributed.comm.timeouts.connect": "0.5s"}),
        pytest.raises(ClusterError, match=r"no scheduler answers at tcp://127.0.0.1:1"),
        connect(ClusterOptions("tcp://127.0.0.1:1")),
    ):
        pass


def test_a_cluster_without_workers_is_not_waited_for_for_ever() -> None:
    with LocalCluster(n_workers=0, dashboard_address=":0") as cluster:
        options = ClusterOptions(cluster.scheduler_address, wait=0.3)
        with pytest.raises(ClusterError, match=r"had no worker within 0.3 s"), connect(options):
            pass


def test_a_client_is_left_open(client: Client) -> None:
    with connect(client) as same:
        assert same is client
    assert client.status == "running"
    with connect(ClusterOptions(address_of(client))) as other:
        assert other.status == "running"
    assert other.status == "closed"


@pytest.mark.parametrize(
    ("who", "package", "version", "refused"),
    [
        ("workers", "torch", "2.12.0+cu130", True),
        ("workers", "torch", torch.__version__.partition("+")[0] + "+cu130", False),
        ("workers", "glaciercube", "0.0.9", True),
        ("workers", "python", "3.10.1.final.0", True),
        ("workers", "rasterio", None, True),
        ("scheduler", "distributed", "2020.1.0", True),
        ("scheduler", "torch", None, False),
    ],
)
def test_other_versions_are_refused_by_name(
    client: Client, who: str, package: str, version: str | None, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: Any = client.get_versions(packages=["torch", "glaciercube", "rasterio"])
    there = found["scheduler"] if who == "scheduler" else next(iter(found["workers"].values()))
    there["packages"] = {**there["packages"], package: version}
    all_packages: Any = client.get_versions
    monkeypatch.setattr(client, "get_versions", lambda packages: _merged(all_packages(packages=packages), found, who))
    if not refused:
        check_versions(client)
        return
    with pytest.raises(ClusterError, match=rf"{package} {_shown(version, package)} and this process has"):
        check_versions(client)


def _merged(full: Any, changed: Any, who: str) -> Any:
    if who == "scheduler":
        full["scheduler"]["packages"].update(changed["scheduler"]["packages"])
    else:
        for address, there in full["workers"].items():
            there["packages"].update(changed["workers"][address]["packages"])
    return full


def _shown(version: str | None, package: str) -> str:
    if package == "python":
        return "3.10"
    return (version or "none").partition("+")[0]


class _Elsewhere:
    """A client of one worker that has another disk."""

    def __init__(self, root: Path, here: Path) -> None:
        self.root, self.here = root, here

    def run(self, function: Any, sizes: dict[str, int], token: str | None) -> dict[str, Any]:
        def there(path: str) -> str:
            return str(self.root / Path(path).relative_to(self.here))

        host, unseen = function({there(k): v for k, v in sizes.items()}, token and there(token))
        return {"tcp://10.0.0.9:1": (host, unseen and str(self.here / Path(unseen).relative_to(self.root)))}


def test_a_path_of_this_machine_is_refused_to_workers_elsewhere(tmp_path: Path, client: Client) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    (here / "data").mkdir(parents=True)
    there.mkdir()
    (here / "data" / "a.tif").write_bytes(b"pixels")
    files, store = [str(here / "data" / "a.tif")], str(here / "out" / "a.zarr")
    # On one disk all is well, and nothing is left behind.
    check_paths(client, store, files)
    assert sorted(p.name for p in here.iterdir()) == ["data"]
    remote: Any = _Elsewhere(there, here)
    with pytest.raises(ClusterError, match=r"does not see .*a\.tif, which is a path of this machine: use a bucket"):
        check_paths(remote, None, files)
    with pytest.raises(ClusterError, match=r"does not see .*out/a\.zarr"):
        check_paths(remote, store, [])
    # What is not there for anybody is not the cluster's fault.
    check_paths(remote, None, [str(here / "gone.tif")])
    assert sorted(p.name for p in here.iterdir()) == ["data"]


@pytest.fixture
def one_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-in: CUDA is said to have one device; both workers are of this process."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace(uuid=f"made-up-{index}"))


def gpus(client: Client) -> dict[str, float]:
    """The resource GPU of each worker."""
    workers = client.scheduler_info(n_workers=-1)["workers"]
    return {address: worker["resources"].get("GPU", 0) for address, worker in workers.items()}


def devices(client: Client) -> dict[str, str | None]:
    """What tasks on each worker take for their device."""
    return {address: client.submit(device_here, workers=[address], pure=False).result() for address in gpus(client)}


@pytest.mark.usefixtures("one_device")
def test_each_device_goes_to_one_worker(client: Client) -> None:
    plugin = DevicePlugin("test")
    client.register_plugin(plugin)
    try:
        assert sorted(gpus(client).values()) == [0, 1]
        assert predict_resources(client, None, None) == {"GPU": 1}
        assert predict_resources(client, None, "cuda") == {"GPU": 1}
        assert predict_resources(client, None, "cpu") == {}
        with pytest.raises(ClusterError, match=r"no worker has the resource TPU: start workers with --resources TPU=1"):
            predict_resources(client, "TPU", None)
    finally:
        client.unregister_worker_plugin(plugin.name)
    # It is given back.
    assert set(gpus(client).values()) == {0}


@pytest.mark.usefixtures("one_device")
def test_two_runs_share_the_devices_until_the_last_ends(client: Client) -> None:
    first, second = DevicePlugin("first"), DevicePlugin("second")
    client.register_plugin(first)
    had, held = gpus(client), devices(client)
    client.register_plugin(second)
    assert (gpus(client), devices(client)) == (had, held)
    client.unregister_worker_plugin(first.name)
    assert (gpus(client), devices(client)) == (had, held)
    assert sorted(held.values(), key=str) == [None, "cuda:0"]
    client.unregister_worker_plugin(second.name)
    assert set(gpus(client).values()) == {0}
    assert set(devices(client).values()) == {None}


@pytest.mark.usefixtures("one_device")
def test_a_resource_that_workers_have_by_themselves_is_left_as_it_was() -> None:
    cluster = LocalCluster(n_workers=1, processes=False, dashboard_address=":0", resources={"GPU": 4})
    with cluster, Client(cluster, set_as_default=False) as client:
        plugin = DevicePlugin("test")
        client.register_plugin(plugin)
        assert list(gpus(client).values()) == [4]
        assert list(devices(client).values()) == ["cuda:0"]
        client.unregister_worker_plugin(plugin.name)
        assert list(gpus(client).values()) == [4]


_KILLED = """
import os, signal, sys
from distributed import Client, WorkerPlugin
from glaciercube.cluster import registered

class Secret(WorkerPlugin):
    name = "secret"

with Client(sys.argv[1], set_as_default=False) as client, registered(client, [Secret()]):
    assert all(client.run(lambda dask_worker: "secret" in dask_worker.plugins).values())
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_driver_that_is_killed_leaves_nothing_on_the_cluster() -> None:
    # Its scheduler listens for other processes.
    with (
        LocalCluster(n_workers=1, processes=False, protocol="tcp", dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        before = set(cluster.scheduler.plugins)
        command = [sys.executable, "-W", "ignore", "-c", _KILLED, cluster.scheduler_address]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == -signal.SIGKILL, done.stderr
        latest = time.monotonic() + 30
        while "secret" in cluster.scheduler.worker_plugins and time.monotonic() < latest:
            time.sleep(0.1)
        assert "secret" not in cluster.scheduler.worker_plugins
        while set(cluster.scheduler.plugins) != before and time.monotonic() < latest:
            time.sleep(0.1)
        assert set(cluster.scheduler.plugins) == before
        assert not any(client.run(lambda dask_worker: "secret" in dask_worker.plugins).values())
