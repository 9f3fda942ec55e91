"""Chaos: workers killed and reads failing at random, on every kind of store; no pixel is lost or changed.

Theorem: whatever is killed or refused, running the plan until it reports no failure gives the decoded store of a quiet
run, exactly. Relied on: one device and thread count; a store that keeps what it said it wrote.
"""

from __future__ import annotations

import logging
import os
import random
import signal
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import dask
import numpy as np
import pytest
import xarray as xr
from conftest import FULL
from distributed import Client, LocalCluster
from fault_server import FaultServer, serve
from services import SeaweedFS

from glaciercube.campaign import RunOptions, make_plan, run
from glaciercube.catalog import Scenes, find
from glaciercube.cube import LoadOptions
from glaciercube.errors import ClusterError, ReadError
from glaciercube.models import load_model
from glaciercube.reading.retry import ReadOptions
from glaciercube.simulate.world import World
from glaciercube.store import StoreOptions, missing_scenes, open_store

RUNS, MODEL = (30, "fusion-unet") if FULL else (3, "ndsi")
KINDS = ("disk", "s3", "icechunk")
# Impatient, so that some reads fail for good and units are left to the next run.
LOAD = LoadOptions(cell=64, read=ReadOptions(attempts=2, delay=0.01, timeout=0.4, connect_timeout=1, budget=2))


@dataclass
class Tally:
    runs: int = 0
    rounds: int = 0
    killed: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    lost: int = 0
    pixels: int = 0


@pytest.fixture(scope="module")
def scenes(world: World, catalog: Path) -> Scenes:
    return find(catalog, world.region, "2021/2022", ["sentinel-2", "dem"])


@pytest.fixture(scope="module")
def quiet(world: World, scenes: Scenes, tmp_path_factory: pytest.TempPathFactory) -> xr.Dataset:
    path = tmp_path_factory.mktemp("quiet") / "quiet.zarr"
    run(make_plan(world.region, scenes, load_model(MODEL), at(str(path)), load=LOAD))
    return open_store(path).load()


@pytest.fixture(scope="module")
def tally(pytestconfig: pytest.Config) -> Iterator[Tally]:
    # Deaths are loud.
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    total = Tally()
    yield total
    reporter = pytestconfig.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:
        reporter.write_line(
            f"\nchaos: {total.runs} stores in {total.rounds} runs; {total.killed} workers killed, "
            f"{sum(total.refused.values())} requests failed {dict(total.refused)}; "
            f"{total.lost} of {total.pixels} pixels lost or changed"
        )


def at(path: str, kind: str = "zarr") -> StoreOptions:
    return StoreOptions(path, shard=32, chunk=32, kind=kind)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(RUNS))
def test_chaos_costs_no_pixel(  # noqa: PLR0917 - fixtures
    seed: int,
    tmp_path: Path,
    world: World,
    scenes: Scenes,
    catalog: Path,
    quiet: xr.Dataset,
    tally: Tally,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kind, draw = KINDS[seed % len(KINDS)], random.Random(seed)  # noqa: S311
    store = at(str(tmp_path / "a"), "icechunk" if kind == "icechunk" else "zarr")
    if kind == "s3":
        server: SeaweedFS = request.getfixturevalue("s3")
        for name, value in server.environ.items():
            monkeypatch.setenv(name, value)
        store = at(f"{server.url}/chaos-{uuid.uuid4()}.zarr")
    faults = ("503", "429", "truncated", "stalled", "reset")
    with serve(catalog.parent, every=draw.randint(6, 14), kinds=faults, seed=seed) as files:
        files.stall = 0.6
        plan = make_plan(world.region, served(scenes, catalog, files), load_model(MODEL), store, load=LOAD)
        with cluster() as client:
            for _ in range(12):
                tally.rounds += 1
                with killing(client, draw, tally):
                    try:
                        run(plan, RunOptions(dates=draw.choice([1, 2]), events=""), cluster=client)
                    except (ReadError, ClusterError):
                        continue  # and again
                    break
            else:
                pytest.fail("it did not end")
    found = open_store(store.path).load()
    assert missing_scenes(store.path).empty
    changed = (found["quality"].to_numpy() != quiet["quality"].to_numpy()) | ~np.isclose(
        found["glacier_probability"], quiet["glacier_probability"], rtol=0, atol=0, equal_nan=True
    )
    tally.runs, tally.pixels = tally.runs + 1, tally.pixels + changed.size
    tally.lost += int(changed.sum())
    tally.refused.update(files.faults)
    assert not changed.any()


def served(scenes: Scenes, catalog: Path, server: FaultServer) -> Scenes:
    """The same scenes, as this server has them."""
    table = scenes.table.copy()
    table["item"] = table["item"].str.replace(str(catalog.parent), server.url, regex=False)
    return Scenes(table, scenes.source)


@contextmanager
def cluster() -> Iterator[Client]:
    # So many deaths are nobody's fault.
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 10}),
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as workers,
        Client(workers, set_as_default=False) as client,
    ):
        yield client


@contextmanager
def killing(client: Client, draw: random.Random, tally: Tally) -> Iterator[None]:
    """Kill a worker now and then."""
    stop = threading.Event()

    def kill() -> None:
        for _ in range(draw.randint(1, 3)):
            if stop.wait(draw.uniform(1.0, 6.0)):
                return
            victims: list[int] = []
            with suppress(OSError):  # one died while it was asked
                victims = sorted(client.run(os.getpid).values())
            if victims:
                os.kill(draw.choice(victims), signal.SIGKILL)
                tally.killed += 1

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        # The next run begins with workers.
        deadline = time.monotonic() + 60
        while not client.nthreads() and time.monotonic() < deadline:
            time.sleep(0.05)
