"""Chaos: workers, drivers and servers killed and reads failing at random, on every kind of store; no pixel is lost.

Theorem: whatever is killed or refused, running the plan until it reports no failure gives the decoded store of a quiet
run, exactly. Relied on: one device and thread count; a store that keeps what it said it wrote.
"""

from __future__ import annotations

import logging
import random
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from chaos import MODES, Tally, attempt, cluster
from conftest import FULL
from fault_server import FaultServer, serve
from services import Missing, SeaweedFS, seaweedfs

from glaciercube.campaign import make_plan, run
from glaciercube.catalog import Scenes, find
from glaciercube.cube import LoadOptions
from glaciercube.models import load_model
from glaciercube.reading.retry import ReadOptions
from glaciercube.simulate.world import World
from glaciercube.store import StoreOptions, missing_scenes, open_reader, open_store

RUNS, MODEL = (30, "fusion-unet") if FULL else (3, "ndsi")
KINDS = ("disk", "s3", "icechunk on s3", "icechunk")
# Impatient, so that some reads fail for good and units are left to the next run.
LOAD = LoadOptions(cell=64, read=ReadOptions(attempts=2, delay=0.01, timeout=0.4, connect_timeout=1, budget=2))
FAULTS = ("503", "429", "truncated", "stalled", "reset")


@pytest.fixture(scope="module")
def scenes(world: World, catalog: Path) -> Scenes:
    return find(catalog, world.region, "2021", ["sentinel-2", "dem"])


@pytest.fixture(scope="module")
def quiet(world: World, scenes: Scenes, tmp_path_factory: pytest.TempPathFactory) -> xr.Dataset:
    path = tmp_path_factory.mktemp("quiet") / "quiet.zarr"
    run(make_plan(world.region, scenes, load_model(MODEL), at(str(path)), load=LOAD))
    return open_store(path).load()


@pytest.fixture(scope="module")
def mortal() -> Iterator[SeaweedFS]:
    """An S3 server of our own, to be killed."""
    try:
        with seaweedfs() as server:
            yield server
    except Missing as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="module")
def tally(say: Callable[[str], None]) -> Iterator[Tally]:
    # Deaths are loud.
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    total = Tally()
    yield total
    say(str(total))
    # Else nothing was tried.
    assert total.workers.total() or not total.stores


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
    kind, draw, server = KINDS[seed % len(KINDS)], random.Random(seed), None  # noqa: S311
    path, mode = str(tmp_path / "a"), MODES[seed % len(MODES)]
    if "s3" in kind:
        server = request.getfixturevalue("mortal")
        for name, value in server.environ.items():
            monkeypatch.setenv(name, value)
        path = f"{server.url}/chaos-{uuid.uuid4()}"
    store = at(path, "icechunk" if "icechunk" in kind else "zarr")
    with serve(catalog.parent, every=draw.randint(6, 14), kinds=FAULTS, seed=seed) as files:
        files.stall = 0.6
        plan = make_plan(world.region, served(scenes, catalog, files), load_model(MODEL), store, load=LOAD)
        with cluster(tally, mode) as client:
            for _ in range(20):
                if attempt(plan, client, draw, tally, mode, server):
                    break
            else:
                pytest.fail("it did not end")
        assert not list(plan.units(open_reader(store, world.region.geobox).done("sha256")))  # type: ignore[union-attr]
    found = open_store(store.path).load()
    assert missing_scenes(store.path).empty
    changed = (found["quality"].to_numpy() != quiet["quality"].to_numpy()) | ~np.isclose(
        found["glacier_probability"], quiet["glacier_probability"], rtol=0, atol=0, equal_nan=True
    )
    tally.stores[kind] += 1
    tally.pixels += changed.size
    tally.lost += int(changed.sum())
    tally.reads.update(files.faults)
    assert not changed.any()


def served(scenes: Scenes, catalog: Path, server: FaultServer) -> Scenes:
    """The same scenes, as this server has them."""
    table = scenes.table.copy()
    table["item"] = table["item"].str.replace(str(catalog.parent), server.url, regex=False)
    return Scenes(table, scenes.source)
