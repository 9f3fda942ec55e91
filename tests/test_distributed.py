"""A run on a cluster: the same bits as on threads, whichever workers die."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from distributed import Client, LocalCluster

from glaciercube.campaign import Plan, RunOptions, make_plan, run
from glaciercube.campaign.events import read_events
from glaciercube.catalog import Scenes, find
from glaciercube.cluster import ClusterOptions
from glaciercube.models import load_model
from glaciercube.simulate.world import World
from glaciercube.store import StoreOptions, missing_scenes, open_store
from conftest import FULL

LOCAL = ClusterOptions("local", workers=2)


@pytest.fixture(scope="module")
def scenes(world: World, catalog: Path) -> Scenes:
    return find(catalog, world.region, "2021/2022", ["sentinel-2", "dem"])


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with local(2) as client:
        yield client


@contextmanager
def local(workers: int, **options: Any) -> Iterator[Client]:
    cluster = LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=":0", **options)
    with cluster, Client(cluster, set_as_default=False) as client:
        yield client


def plan_at(path: Path | str, world: World, scenes: Scenes, model: str = "ndsi", **store: Any) -> Plan:
    options = StoreOptions(str(path), **{"shard": 32, "chunk": 32, **store})
    return make_plan(world.region, scenes, load_model(model), options)


def pixels(path: Path) -> dict[str, bytes]:
    files = [p for name in ("glacier_probability", "quality") for p in (path / name / "c").rglob("*") if p.is_file()]
    return {str(p.relative_to(path)): p.read_bytes() for p in files}


def test_a_cluster_gives_the_bits_that_threads_give(
    tmp_path: Path, world: World, scenes: Scenes, client: Client
) -> None:
    model = "fusion-unet"
    run(plan_at(tmp_path / "threads.zarr", world, scenes, model))
    outcome = run(plan_at(tmp_path / "cluster.zarr", world, scenes, model), cluster=client)
    assert (outcome.computed, outcome.skipped) == (36, 0)
    assert pixels(tmp_path / "cluster.zarr") == pixels(tmp_path / "threads.zarr")
    # Three tasks a unit.
    assert run(plan_at(tmp_path / "cluster.zarr", world, scenes, model), cluster=client).computed == 0


def test_the_event_log_tells_what_each_unit_took(tmp_path: Path, world: World, scenes: Scenes, client: Client) -> None:
    run(plan_at(tmp_path / "a.zarr", world, scenes), RunOptions(dates=2), cluster=client)
    events = read_events(tmp_path / "a.zarr.events.jsonl")
    assert [events[0]["event"], events[-1]["event"]] == ["began", "ended"]
    assert (events[0]["left"], events[-1]["computed"], events[-1]["failed"]) == (36, 36, 0)
    by_step = {name: [e for e in events if e["event"] == name] for name in ("started", "read", "predicted", "written")}
    assert {name: len(found) for name, found in by_step.items()} == dict.fromkeys(by_step, 18)
    addresses = set(client.scheduler_info(n_workers=-1)["workers"])
    assert {e["worker"] for e in by_step["predicted"]} <= addresses
    assert all(e["seconds"] >= 0 and e["bytes"] > 0 for e in by_step["read"])
    assert {(tuple(e["block"]), *e["rows"]) for e in by_step["written"]} == {
        (tuple(e["block"]), *e["rows"]) for e in by_step["started"]
    }


@contextmanager
def killing(client: Client, log: Path, after: list[int]) -> Iterator[list[int]]:
    """Kill a worker each time that so many units were written."""
    killed: list[int] = []
    stop = threading.Event()

    def watch() -> None:
        for count in after:
            while not stop.is_set():
                done = sum(e["event"] == "written" for e in read_events(log)) if log.exists() else 0
                if done >= count:
                    break
                time.sleep(0.01)
            pids = list(client.run(os.getpid).values())
            if stop.is_set() or not pids:
                return
            os.kill(pids[0], signal.SIGKILL)
            killed.append(pids[0])

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield killed
    finally:
        stop.set()
        thread.join()


def test_a_killed_worker_costs_no_pixel(tmp_path: Path, world: World, scenes: Scenes) -> None:
    quiet, store = tmp_path / "quiet.zarr", tmp_path / "a.zarr"
    run(plan_at(quiet, world, scenes))
    log = tmp_path / "events.jsonl"
    with local(2) as client, killing(client, log, [3, 12]) as killed:
        outcome = run(plan_at(store, world, scenes), RunOptions(dates=1, events=str(log)), cluster=client)
    assert len(killed) == 2
    assert outcome.computed == 36
    assert pixels(store) == pixels(quiet)
    assert sum(e["event"] == "worker-lost" for e in read_events(log)) == 2
    assert run(plan_at(store, world, scenes)).computed == 0


def test_predictions_stay_on_workers_with_the_resource(tmp_path: Path, world: World, scenes: Scenes) -> None:
    with local(1, resources={"GPU": 1}) as client:
        (gpu,) = client.scheduler_info(n_workers=-1)["workers"]
        with other_worker(client) as other:
            cluster = ClusterOptions(client.scheduler.address, resource="GPU")
            run(plan_at(tmp_path / "a.zarr", world, scenes), RunOptions(dates=1), cluster=cluster)
            events = read_events(tmp_path / "a.zarr.events.jsonl")
    where = {name: {e["worker"] for e in events if e["event"] == name} for name in ("read", "predicted")}
    assert where["predicted"] == {gpu}
    assert other in where["read"]


@contextmanager
def other_worker(client: Client) -> Iterator[str]:
    """A worker without resources beside those that there are."""
    import subprocess
    import sys

    before = set(client.scheduler_info(n_workers=-1)["workers"])
    command = [sys.executable, "-m", "distributed.cli.dask_worker", client.scheduler.address, "--nthreads", "1"]
    with subprocess.Popen([*command, "--no-dashboard"], stderr=subprocess.DEVNULL) as worker:
        client.wait_for_workers(len(before) + 1, timeout=60)
        (address,) = set(client.scheduler_info(n_workers=-1)["workers"]) - before
        try:
            yield address
        finally:
            worker.terminate()
