"""The cube through a server that fails one request in three: the same pixels, or a scene is listed; never zeros."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from conftest import FULL
from fault_server import KINDS, Asked, FaultServer, serve

from glaciercube.campaign import Plan, RunOptions, make_plan, run
from glaciercube.catalog import Scenes, find
from glaciercube.cube import LoadOptions, compose, load
from glaciercube.errors import ReadError
from glaciercube.inference import predict
from glaciercube.models import load_model
from glaciercube.reading import blocks
from glaciercube.reading.retry import ReadOptions
from glaciercube.reading.transport import forget
from glaciercube.simulate.world import World
from glaciercube.store import StoreOptions, missing_scenes, open_store, row_label

FAULTS = 800 if FULL else 100
IMPATIENT = ReadOptions(attempts=8, connect_timeout=2.0, timeout=0.25, delay=0.01, budget=60.0)
LOAD = LoadOptions(cell=32, read=IMPATIENT)


@pytest.fixture(scope="module")
def scenes(world: World, catalog: Path) -> Scenes:
    return find(catalog, world.region, "2021/2022")


@pytest.fixture(scope="module")
def quiet(world: World, scenes: Scenes) -> xr.DataTree:
    return load(scenes, world.region, LOAD).compute()


@pytest.fixture
def server(catalog: Path) -> Iterator[FaultServer]:
    forget()
    with serve(catalog.parent) as running:
        running.stall = 0.5
        yield running


def served(scenes: Scenes, catalog: Path, server: FaultServer, signing: str = "") -> Scenes:
    """The same scenes, as this server has them."""
    table = scenes.table.copy()
    table["item"] = table["item"].str.replace(str(catalog.parent), server.url, regex=False)
    return Scenes(table, scenes.source, signing)


def planned(path: Path, world: World, scenes: Scenes) -> Plan:
    store = StoreOptions(str(path), shard=32, chunk=32)
    return make_plan(world.region, scenes, load_model("ndsi"), store, load=LOAD)


def test_lazy_reads_give_the_quiet_cube_or_raise(
    world: World, scenes: Scenes, quiet: xr.DataTree, catalog: Path, server: FaultServer
) -> None:
    refused = equal = 0
    server.every = 3
    while sum(server.faults.values()) < FAULTS or set(server.faults) < set(KINDS):
        forget()
        tree = load(served(scenes, catalog, server), world.region, LOAD)
        for name, node in tree.children.items():
            wanted = quiet[name].to_dataset()
            for variable in node.to_dataset().data_vars:
                found = outcome(node.to_dataset()[str(variable)])
                if isinstance(found, ReadError):
                    # Two refusals in a row are meant; everything else was overcome.
                    assert found.failure == "authorisation"
                    assert found.scene in set(scenes.table["id"])
                    refused += 1
                else:
                    equal += 1
                    np.testing.assert_array_equal(found, wanted[variable], err_msg=f"{name} {variable}")
    assert equal > 4 * refused


def outcome(lazy: xr.DataArray) -> xr.DataArray | ReadError:
    try:
        return lazy.compute()
    except ReadError as error:
        return error


def test_a_campaign_is_bit_equal_or_says_what_it_lacks(
    tmp_path: Path, world: World, scenes: Scenes, catalog: Path, server: FaultServer
) -> None:
    moving = Scenes(scenes.table[scenes.table["sensor"] == "sentinel-2"].reset_index(drop=True), scenes.source)
    run(planned(tmp_path / "quiet.zarr", world, moving))
    wanted = open_store(tmp_path / "quiet.zarr")
    server.every = 3
    lacking = rounds = 0
    while sum(server.faults.values()) < FAULTS:
        forget()
        path = tmp_path / f"{rounds}.zarr"
        rounds += 1
        run(planned(path, world, served(moving, catalog, server)), RunOptions(threads=4))
        found, told = open_store(path), missing_scenes(path)
        lacking += len(told)
        gone = {(time, y, x): set(part["scene"]) for (time, y, x), part in told.groupby(["time", "block_y", "block_x"])}
        for row, time in enumerate(found["time"].to_numpy()):
            for y in range(3):
                for x in range(3):
                    window = {"time": row, "y": slice(32 * y, 32 * y + 32), "x": slice(32 * x, 32 * x + 32)}
                    left = gone.get((time, y, x))
                    expected = without(world, moving, left, time) if left else wanted.isel(time=row)
                    here = {name: window[name] for name in ("y", "x")}
                    for name in ("glacier_probability", "quality"):
                        np.testing.assert_allclose(
                            found[name].isel(window), expected[name].isel(here), atol=0.0021 if left else 0.0
                        )
    # Almost every fault was overcome.
    assert lacking < 0.05 * rounds * 4 * 9


def without(world: World, scenes: Scenes, gone: set[str], time: np.datetime64) -> xr.Dataset:
    """What a row is like without some scenes."""
    rest = Scenes(scenes.table[~scenes.table["id"].isin(gone)].reset_index(drop=True), scenes.source)
    made = predict(compose(load(rest, world.region, LOAD)), load_model("ndsi"))
    at = np.flatnonzero(made["time"].to_numpy().astype("datetime64[s]") == time.astype("datetime64[s]"))
    if len(at):
        return made.isel(time=int(at[0]))
    nothing = xr.full_like(made.isel(time=0), 0)
    return nothing.assign(glacier_probability=nothing["glacier_probability"] * np.nan, quality=nothing["quality"] + 1)


def test_a_scene_that_is_gone_is_listed_and_the_rest_is_there(
    tmp_path: Path, world: World, scenes: Scenes, catalog: Path, server: FaultServer
) -> None:
    moving = Scenes(scenes.table[scenes.table["sensor"] == "sentinel-2"].reset_index(drop=True), scenes.source)
    victim = moving.table.iloc[0]
    server.every = 3
    server.choose = lambda asked: "404" if victim["id"] in asked.path else None
    run(planned(tmp_path / "a.zarr", world, served(moving, catalog, server)))
    told = missing_scenes(tmp_path / "a.zarr")
    mine = told[told["scene"] == victim["id"]]
    assert len(mine) >= 3
    assert set(mine["failure"]) == {"permanent"}
    assert mine["reason"].str.contains("404").all()
    found = open_store(tmp_path / "a.zarr")
    expected = without(world, moving, {victim["id"]}, found["time"].to_numpy()[0])
    np.testing.assert_allclose(found["glacier_probability"][0], expected["glacier_probability"], atol=0.0021)
    assert found["glacier_probability"][0].notnull().any()


def test_what_may_be_read_later_leaves_its_shards_undone(
    tmp_path: Path, world: World, scenes: Scenes, catalog: Path, server: FaultServer
) -> None:
    moving = Scenes(scenes.table[scenes.table["sensor"] == "sentinel-2"].reset_index(drop=True), scenes.source)
    victim = moving.table.iloc[0]
    server.choose = lambda asked: "503" if victim["id"] in asked.path else None
    plan = planned(tmp_path / "a.zarr", world, served(moving, catalog, server))
    with pytest.raises(ReadError, match=r"answers 503; gave up after 8 attempts.*then run again") as caught:
        run(plan)
    assert (caught.value.failure, caught.value.scene) == ("transient", victim["id"])
    found = open_store(tmp_path / "a.zarr")
    label = row_label(np.datetime64(victim["time"].tz_localize(None)))
    lost = found.sel(time=label)
    undone = (lost["quality"] == 0).to_numpy()
    assert undone.any()
    assert np.isnan(lost["glacier_probability"].to_numpy()[undone]).all()
    assert (found["quality"].isel(time=slice(1, None)) & 1 == 1).all()
    assert missing_scenes(tmp_path / "a.zarr").empty
    server.choose = None
    shards = sum(undone[y : y + 32, x : x + 32].all() for y in (0, 32, 64) for x in (0, 32, 64))
    assert run(plan).computed == shards >= 3
    run(planned(tmp_path / "b.zarr", world, moving))
    np.testing.assert_array_equal(
        open_store(tmp_path / "a.zarr")["glacier_probability"], open_store(tmp_path / "b.zarr")["glacier_probability"]
    )


def test_without_credentials_a_run_does_not_end_empty(
    tmp_path: Path, world: World, scenes: Scenes, catalog: Path, server: FaultServer
) -> None:
    server.choose = lambda _: "403"
    moving = Scenes(scenes.table[scenes.table["sensor"] == "sentinel-2"].reset_index(drop=True), scenes.source)
    with pytest.raises(ReadError, match="check the credentials") as caught:
        run(planned(tmp_path / "a.zarr", world, served(moving, catalog, server)))
    assert caught.value.failure == "authorisation"
    assert missing_scenes(tmp_path / "a.zarr").empty
    first = open_store(tmp_path / "a.zarr")
    # Shards that no scene reaches need nothing.
    assert first["glacier_probability"].isnull().all()
    assert not (first["quality"] & 2).any()


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """One file is kept at a time: every unit asks the server."""
    monkeypatch.setattr(blocks, "CACHE_BYTES", 2 * blocks.BLOCK)


@pytest.mark.parametrize("lost", [False, True])
@pytest.mark.usefixtures("forgetful")
def test_a_token_that_ends_during_a_run_blanks_nothing(
    tmp_path: Path, world: World, scenes: Scenes, catalog: Path, server: FaultServer, lost: bool
) -> None:
    """Neither with nor without a scene that was really lost, and rightly left out, while the token was good."""
    early = (scenes.table["sensor"] == "sentinel-2") & (scenes.table["time"].dt.year == 2021)
    moving = Scenes(scenes.table[early].reset_index(drop=True), scenes.source)
    plan = planned(tmp_path / "a.zarr", world, served(moving, catalog, server))
    run(planned(tmp_path / "quiet.zarr", world, served(moving, catalog, server)), RunOptions(threads=1))
    victim, ends = str(moving.table.iloc[0]["id"]), server.requests + server.requests // 2
    done_pixels = 0

    def choose(asked: Asked) -> str | None:
        if server.requests > ends:
            return "403"
        return "404" if lost and victim in asked.path else None

    server.choose = choose
    with pytest.raises(ReadError, match="check the credentials") as caught:
        run(plan, RunOptions(threads=1))
    assert caught.value.failure == "authorisation"
    told = missing_scenes(tmp_path / "a.zarr")
    assert set(told["scene"]) == ({victim} if lost else set())
    assert set(told["failure"]) <= {"permanent"}
    found, wanted = open_store(tmp_path / "a.zarr"), open_store(tmp_path / "quiet.zarr")
    first = without(world, moving, {victim}, found["time"].to_numpy()[0]) if lost else wanted.isel(time=0)
    for row in range(2):
        expected = wanted.isel(time=row) if row else first
        done = (found["quality"].isel(time=row) != 0).to_numpy()
        done_pixels += int(done.sum())
        for name in ("glacier_probability", "quality"):
            here = found[name].isel(time=row).to_numpy()[done]
            np.testing.assert_allclose(here, expected[name].to_numpy()[done], atol=0.0 if row else 0.0021)
    assert 0 < done_pixels < found["quality"].size
    server.choose = None
    forget()
    assert run(plan, RunOptions(retry_missing=True)).lacking == 0
    np.testing.assert_array_equal(open_store(tmp_path / "a.zarr")["glacier_probability"], wanted["glacier_probability"])


def test_a_scene_that_alone_is_refused_is_left_out(
    tmp_path: Path, world: World, scenes: Scenes, catalog: Path, server: FaultServer
) -> None:
    """Others of its collection must be readable: those of another, on the same host, say nothing of its token."""
    moving = Scenes(scenes.table[scenes.table["sensor"] != "sentinel-1"].reset_index(drop=True), scenes.source)
    victim = str(moving.of("sentinel-2").table.iloc[0]["id"])
    server.choose = lambda asked: "403" if victim in asked.path else None
    assert run(planned(tmp_path / "a.zarr", world, served(moving, catalog, server))).lacking >= 3
    told = missing_scenes(tmp_path / "a.zarr")
    assert (set(told["scene"]), set(told["failure"])) == ({victim}, {"authorisation"})
    forget()
    server.choose = lambda asked: "403" if "sentinel-2" in asked.path else None
    with pytest.raises(ReadError, match="check the credentials"):
        run(planned(tmp_path / "b.zarr", world, served(moving, catalog, server)))
    assert missing_scenes(tmp_path / "b.zarr").empty


def test_a_refusal_that_has_passed_is_no_loss(
    tmp_path: Path, world: World, scenes: Scenes, catalog: Path, server: FaultServer
) -> None:
    """Refused twice, as while a token is being replaced, and then no more."""
    moving = Scenes(scenes.table[scenes.table["sensor"] == "sentinel-2"].reset_index(drop=True), scenes.source)
    left = ["403", "403"]
    server.choose = lambda _: left.pop() if left else None
    assert run(planned(tmp_path / "a.zarr", world, served(moving, catalog, server)), RunOptions(threads=1)).lacking == 0
    assert not left
    run(planned(tmp_path / "b.zarr", world, moving))
    np.testing.assert_array_equal(
        open_store(tmp_path / "a.zarr")["glacier_probability"], open_store(tmp_path / "b.zarr")["glacier_probability"]
    )


def test_processes_overcome_faults_and_their_tasks_show_no_secret(
    world: World,
    scenes: Scenes,
    quiet: xr.DataTree,
    catalog: Path,
    server: FaultServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    distributed = pytest.importorskip("distributed")
    secret = "s3cr3tT0ken"  # noqa: S105 - made up
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=2, processes=True, dashboard_address=None) as cluster,
        distributed.Client(cluster),
    ):
        monkeypatch.setenv("MY_TOKEN", secret)
        mine = served(scenes, catalog, server, "bearer:$MY_TOKEN")
        lazy = load(mine, world.region, LOAD)["sentinel2"].to_dataset()[["red", "swir16"]]
        monkeypatch.delenv("MY_TOKEN")
        assert secret not in repr(dict(lazy["red"].data.dask))
        server.every, server.kinds = 3, ("503", "429", "truncated", "stalled", "reset")
        server.choose = lambda asked: None if asked.headers.get("Authorization") == f"Bearer {secret}" else "401"
        found = lazy.compute()
    assert sum(server.faults.values()) > 5
    assert not server.faults["401"]
    for name in ("red", "swir16"):
        np.testing.assert_array_equal(found[name], quiet["sentinel2"][name])
