"""Chaos: workers, drivers and servers killed and reads failing at random, on every kind of store; no pixel is lost.

Theorem: whatever is killed or refused, running the plan until it reports no failure gives the decoded store of a quiet
run, exactly. Relied on: one device and thread count; a store that keeps what it said it wrote.
"""

from __future__ import annotations

import getpass
import logging
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr
from chaos import COMMITS, MODES, REFUSED, Tally, attempt, cluster, other_process
from conftest import FULL
from fault_server import Asked, Fault, FaultServer, serve
from services import SeaweedFS, seaweedfs
from services.fixtures import served as served_by

from glaciercube.campaign import RunOptions, make_plan, run
from glaciercube.campaign.batches import Batch
from glaciercube.catalog import Scenes, find
from glaciercube.cube import LoadOptions
from glaciercube.errors import StoreError
from glaciercube.models import load_model
from glaciercube.reading.retry import ReadOptions
from glaciercube.simulate.world import World
from glaciercube.store import StoreOptions, missing_scenes, open_reader, open_store
from glaciercube.store.objects import Location

# The quick ones kill a driver (4), the server (29), and workers in all ways.
SEEDS, MODEL = (tuple(range(30)), "fusion-unet") if FULL else ((4, 29), "ndsi")
KINDS = ("disk", "s3", "icechunk on s3", "icechunk")
# Impatient, so that some reads fail for good and units are left to the next run.
LOAD = LoadOptions(cell=64, read=ReadOptions(attempts=2, delay=0.01, timeout=0.4, connect_timeout=1, budget=2))
FAULTS = ("503", "429", "truncated", "stalled", "reset")


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commits so often that kills fall between them."""
    shards, seconds = COMMITS
    monkeypatch.setattr(Batch, "shards", shards)
    monkeypatch.setattr(Batch, "seconds", seconds)


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
    yield from served_by(seaweedfs())


@pytest.fixture(scope="module")
def tally(say: Callable[[str], None]) -> Iterator[Tally]:
    # Deaths are loud.
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    total = Tally()
    yield total
    say(str(total))
    # Else nothing was tried.
    assert total.workers.total() or not total.stores
    if FULL and total.stores.total() == len(SEEDS):
        tried = (total.workers.total(), total.drivers, total.between, total.servers, total.reads.total())
        assert all(tried), str(total)


def at(path: str, kind: str = "zarr") -> StoreOptions:
    return StoreOptions(path, shard=32, chunk=32, kind=kind)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", SEEDS)
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
    kind, draw, mode = KINDS[seed % len(KINDS)], random.Random(seed), MODES[seed % len(MODES)]  # noqa: S311
    store, server = placed(kind, tmp_path, request, monkeypatch)
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
    assert missing_scenes(store.path).empty
    changed = differing(store, quiet)
    tally.stores[kind] += 1
    tally.pixels += changed.size
    tally.lost += int(changed.sum())
    tally.reads.update(files.faults)
    assert not changed.any()


@pytest.mark.parametrize("kind", KINDS if FULL else KINDS[:1])
def test_two_campaigns_at_one_time(  # noqa: PLR0917 - fixtures
    kind: str,
    tmp_path: Path,
    world: World,
    scenes: Scenes,
    catalog: Path,
    quiet: xr.Dataset,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The second is refused by the first one's name; one that takes over is the only one from then on.

    It makes other pixels of the same scenes: what the first still wrote over them would be seen.
    """
    store, _ = placed(kind, tmp_path, request, monkeypatch)
    taken = threading.Event()

    def slow(_: Asked) -> Fault:
        """The first run takes its time until the second has begun."""
        taken.wait(0.1)
        return None

    with serve(catalog.parent) as files:
        files.choose = slow
        here = served(scenes, catalog, files)
        models = [load_model("ndsi", threshold=threshold) for threshold in (0.4, 0.6)]
        plan, other = (
            make_plan(world.region, here, model, store, load=LoadOptions(cell=LOAD.cell)) for model in models
        )
        first, told = other_process(plan, RunOptions(threads=2, dates=1, events=""))
        try:
            wait_for_shards(store)
            with pytest.raises(StoreError, match=rf"is being written by .*\(pid {first.pid}\)"):
                run(other, RunOptions(events=""))
            assert first.is_alive()
            threading.Timer(0.5, taken.set).start()
            run(other, RunOptions(threads=2, dates=1, events="", takeover=True))
            first.join(60)
        finally:
            first.kill()
        assert first.exitcode == REFUSED
        assert f"was taken over by {getpass.getuser()}@" in told.recv()
        assert not list(other.units(open_reader(store, world.region.geobox).done("sha256")))  # type: ignore[union-attr]
    alone = make_plan(
        world.region, scenes, models[1], at(str(tmp_path / "alone.zarr")), load=LoadOptions(cell=LOAD.cell)
    )
    run(alone, RunOptions(events=""))
    assert not differing(store, open_store(alone.store.path).load()).any()
    # Else nothing could be seen: the quiet run of the first is another.
    assert MODEL != "ndsi" or differing(store, quiet).any()


def wait_for_shards(store: StoreOptions) -> None:
    """Until something is written there, however it is kept."""
    objects = Location.here(store.path, store.endpoint).objects()
    kept = "chunks" if store.kind == "icechunk" else "glacier_probability/c"
    deadline = time.monotonic() + 120
    while not any(True for _ in objects.list(kept)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def placed(
    kind: str, folder: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> tuple[StoreOptions, SeaweedFS | None]:
    """A store of a kind, and the server that it is on."""
    path, server = str(folder / "a"), None
    if "s3" in kind:
        server = request.getfixturevalue("mortal")
        for name, value in server.environ.items():
            monkeypatch.setenv(name, value)
        path = f"{server.url}/chaos-{uuid.uuid4()}"
    return at(path, "icechunk" if "icechunk" in kind else "zarr"), server


def differing(store: StoreOptions, quiet: xr.Dataset) -> npt.NDArray[np.bool_]:
    """Pixels that are not, bit for bit, those of the quiet run."""
    found = open_store(store.path).load()
    same = np.isclose(
        found["glacier_probability"], quiet["glacier_probability"], rtol=0, atol=0, equal_nan=True
    ) & np.equal(found["quality"], quiet["quality"])
    return ~np.asarray(same)


def served(scenes: Scenes, catalog: Path, server: FaultServer) -> Scenes:
    """The same scenes, as this server has them."""
    table = scenes.table.copy()
    table["item"] = table["item"].str.replace(str(catalog.parent), server.url, regex=False)
    return Scenes(table, scenes.source)
