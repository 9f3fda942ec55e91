"""plan, run, kill, run again: the same pixels, and only what was missing is computed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from click.testing import CliRunner
from conftest import FULL
from distributed import Client, LocalCluster

from glaciercube.campaign import Plan, RunOptions, explain, make_plan, run
from glaciercube.catalog import Scenes, find
from glaciercube.catalog.scenes import LEFT_OUT
from glaciercube.cli import main
from glaciercube.config import parse_config
from glaciercube.cube import ComposeOptions, LoadOptions, MaskOptions, compose, load, settle_offsets
from glaciercube.cube.offset_record import offset_records
from glaciercube.cube.radar import RadarOptions
from glaciercube.errors import GridMismatchError, ReadError, StoreError
from glaciercube.inference import BlockOptions, predict
from glaciercube.models import load_model
from glaciercube.reading import backend_odc
from glaciercube.region import Region
from glaciercube.simulate.world import World
from glaciercube.store import StoreOptions, missing_scenes, open_store, provenance_of, row_label
from glaciercube.store.layout import pack
from glaciercube.store.zarrhandle import ZarrHandle


@pytest.fixture(scope="module")
def scenes(world: World, catalog: Path) -> Scenes:
    return find(catalog, world.region, "2021/2022", ["sentinel-2"])


def plan_at(path: Path, world: World, scenes: Scenes, **parameters: Any) -> Plan:
    model = load_model("ndsi", **parameters)
    return make_plan(world.region, scenes, model, StoreOptions(str(path), shard=48, chunk=48))


def shards(path: Path) -> dict[str, tuple[bytes, int]]:
    files = [p for name in ("glacier_probability", "quality") for p in (path / name / "c").rglob("*") if p.is_file()]
    return {str(p.relative_to(path)): (p.read_bytes(), p.stat().st_mtime_ns) for p in files}


def test_a_run_stores_what_predict_gives(tmp_path: Path, world: World, catalog: Path) -> None:
    scenes = find(catalog, world.region, "2021/2022", ["sentinel-2", "dem"])
    plan = plan_at(tmp_path / "a.zarr", world, scenes)
    outcome = run(plan, config={"name": "mine"})
    assert (outcome.computed, outcome.skipped) == (4 * 4, 0)
    cube = compose(load(scenes, world.region))
    wanted = predict(cube, load_model("ndsi")).compute()
    found = open_store(tmp_path / "a.zarr")
    np.testing.assert_allclose(found["glacier_probability"], wanted["glacier_probability"], atol=0.002001)
    np.testing.assert_array_equal(found["quality"], wanted["quality"])
    made = provenance_of(found)
    records = made["reflectance_offsets"]
    assert set(records) == set(scenes.of("sentinel-2").table["id"])
    assert {record["offset"] for record in records.values()} == {0.0, -0.1}
    assert all(set(record) == {"offset", "baseline", "by_baseline", "by_provider"} for record in records.values())
    assert {name for ids in made["scenes"].values() for name in ids} == set(scenes.table["id"])
    assert made["model_hash"] == plan.model.hash
    assert made["config"] == {"name": "mine"}
    assert {"torch", "zarr", "glaciercube"} <= set(made["versions"])


@pytest.mark.parametrize(("where", "every"), [("threads", "observation"), ("cluster", "year")])
def test_both_surfaces_give_the_same_pixels(
    tmp_path: Path, world: World, catalog: Path, where: str, every: Literal["observation", "year"]
) -> None:
    """All sensors, shards whose halos meet, and clouds that are grown across them: notebook, threads, cluster."""
    scenes = find(catalog, world.region, "2021", ["sentinel-2", "sentinel-1", "dem"])
    loading = LoadOptions(cell=40, radar=RadarOptions(speckle="lee", window=5))
    composing = ComposeOptions(every, mask=MaskOptions(dilate=60.0))
    model, store = load_model("fusion-unet"), StoreOptions(str(tmp_path / "a.zarr"), shard=48, chunk=48)
    assert model.contract.halo > 16
    plan = make_plan(world.region, scenes, model, store, load=loading, compose=composing)
    rows = len(plan.rows)
    if where == "threads":
        outcome = run(plan, RunOptions(dates=1, threads=2))
    else:
        with (
            LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=":0") as cluster,
            Client(cluster, set_as_default=False) as client,
        ):
            outcome = run(plan, RunOptions(dates=2), cluster=client)
    assert outcome.computed == 4 * rows
    cube = compose(load(scenes, world.region, loading), composing)
    wanted = predict(cube, model, block=80, options=BlockOptions(batch=3)).compute(scheduler="threads")
    stored = open_store(tmp_path / "a.zarr")
    np.testing.assert_array_equal(stored["quality"], wanted["quality"])
    known = wanted["glacier_probability"].to_numpy()
    assert np.isfinite(known).mean() > 0.5
    # Packed as the store packs, bit for bit.
    packed = xr.open_zarr(tmp_path / "a.zarr", mask_and_scale=False)["glacier_probability"]
    np.testing.assert_array_equal(packed, pack(known))


def test_what_was_decided_of_scenes_is_kept(tmp_path: Path, world: World, catalog: Path) -> None:
    scenes = find(catalog, world.region, "2021/2022")
    lost = [
        ("sentinel-2", "sentinel-2-l2a", name, f"its cloud cover of {cover} % is above 70 %")
        for name, cover in (("a", 91), ("b", 80))
    ]
    scenes = replace(scenes, left_out=pd.DataFrame([*lost, ("dem", "c", "d", "no")], columns=list(LEFT_OUT)))
    radar = LoadOptions(radar=RadarOptions(platform_db={"sentinel-1a": 0.25}))
    store = StoreOptions(str(tmp_path / "a.zarr"))
    run(make_plan(world.region, settle_offsets(scenes, world.region), load_model("ndsi"), store, load=radar))
    made = provenance_of(open_store(tmp_path / "a.zarr"))
    for record in made["reflectance_offsets"].values():
        assert record["offset"] == record["by_data"] == record["by_baseline"]
        assert record["baseline"] is not None
    passes = made["radar_passes"]
    assert set(passes) == set(scenes.of("sentinel-1").table["id"])
    for record in passes.values():
        assert record["correction_db"] == (0.25 if record["platform"] == "sentinel-1a" else 0.0)
        assert record["orbit_state"] in ("ascending", "descending")
        assert record["relative_orbit"] > 0
    assert made["left_out"] == {"dem": {"no": 1}, "sentinel-2": {"its cloud cover of 91 % is above 70 %": 2}}


@pytest.mark.parametrize("name", ["a.zarr", "a.icechunk"])
def test_the_store_remembers_what_pixels_said_of_offsets(
    tmp_path: Path, world: World, catalog: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A look that cannot be taken any more must not bring a wrong declaration back, and redo dates with it."""
    if name.endswith("icechunk"):
        pytest.importorskip("icechunk")
    copy = tmp_path / "world"
    shutil.copytree(catalog.parent, copy)
    scenes = find(copy / "catalog.json", world.region, "2021/2022", ["sentinel-2"])
    liar = scenes.table[scenes.table["offset"] == -0.1].iloc[0]
    (path,) = copy.rglob(f"{liar['id']}.json")
    item = json.loads(path.read_text())
    item["properties"]["s2:processing_baseline"] = "02.14"
    path.write_text(json.dumps(item))
    west, south, east, north = world.region.bbox
    config = parse_config(
        f"{{region: {{bbox: [{west}, {south}, {east}, {north}], resolution: 40}}, catalog: {copy / 'catalog.json'}, "
        f"time: 2021/2022, sensors: [sentinel-2], model: ndsi, store: {tmp_path / name}}}"
    )
    with pytest.warns(UserWarning, match="the pixels are believed"):
        first = config.plan()
    run(first)
    monkeypatch.setattr(backend_odc, "read", lambda _: pytest.fail("a scene was looked at again"))
    again = config.plan()
    assert again.keys == first.keys
    assert run(again).computed == 0
    assert offset_records(again.scenes) == provenance_of(open_store(tmp_path / name))["reflectance_offsets"]


def test_again_computes_nothing_and_touches_nothing(tmp_path: Path, world: World, scenes: Scenes) -> None:
    plan = plan_at(tmp_path / "a.zarr", world, scenes)
    run(plan)
    before = shards(tmp_path / "a.zarr")
    outcome = run(plan_at(tmp_path / "a.zarr", world, scenes))
    assert (outcome.computed, outcome.skipped) == (0, 16)
    assert shards(tmp_path / "a.zarr") == before


def test_only_what_is_missing_or_changed_is_computed(tmp_path: Path, world: World, scenes: Scenes) -> None:
    path = tmp_path / "a.zarr"
    run(plan_at(path, world, scenes))
    before = shards(path)
    victim = next(name for name in before if name.startswith("glacier_probability"))
    (path / victim).unlink()
    assert run(plan_at(path, world, scenes)).computed == 1
    after = shards(path)
    assert {name: data for name, (data, _) in after.items()} == {name: data for name, (data, _) in before.items()}
    # Another threshold is another result.
    assert run(plan_at(path, world, scenes, threshold=0.6)).computed == 16
    # A new year is added beside the old ones.
    fewer = Scenes(scenes.table[scenes.table["time"].dt.year != 2022].reset_index(drop=True), scenes.source)
    run(plan_at(tmp_path / "b.zarr", world, fewer))
    old = shards(tmp_path / "b.zarr")
    assert run(plan_at(tmp_path / "b.zarr", world, scenes)).computed == 8
    assert {name: shards(tmp_path / "b.zarr")[name] for name in old} == old


@pytest.mark.parametrize("sensors", [["dem"], ["sentinel-1"], ["sentinel-1", "dem"], ["sentinel-2", "sentinel-1"]])
@pytest.mark.parametrize("every", ["observation", "year"])
def test_any_sensors_on_any_axis(tmp_path: Path, world: World, catalog: Path, sensors: list[str], every: str) -> None:
    scenes = find(catalog, world.region, "2021/2022", sensors)
    options = ComposeOptions(every=every)  # type: ignore[arg-type]
    store = StoreOptions(str(tmp_path / "a.zarr"))
    run(make_plan(world.region, scenes, load_model("fusion-unet"), store, compose=options))
    stored = open_store(tmp_path / "a.zarr")
    wanted = predict(compose(load(scenes, world.region), options), load_model("fusion-unet"))
    np.testing.assert_allclose(stored["glacier_probability"], wanted["glacier_probability"], atol=0.00201)
    np.testing.assert_array_equal(stored["time"].astype("datetime64[s]"), wanted["time"].astype("datetime64[s]"))


_JOB = """
import sys
from glaciercube.campaign import RunOptions, make_plan, run
from glaciercube.campaign.batches import Batch
from glaciercube.catalog import Scenes
from glaciercube.models import load_model
from glaciercube.region import Region
from glaciercube.store import StoreOptions
from odc.geo.geobox import GeoBox
from affine import Affine
import time

add = Batch.add
def slow(*args):
    time.sleep(0.05)  # so that the kill meets it at work
    add(*args)
Batch.add, Batch.shards = slow, 1
scenes, path, shape, affine, crs = sys.argv[1:]
grid = GeoBox(eval(shape), Affine(*eval(affine)), crs)
store = StoreOptions(path, shard=48, chunk=48)
plan = make_plan(Region("simulated", grid), Scenes.load(scenes), load_model("ndsi"), store)
run(plan, RunOptions(dates=1))
"""


@pytest.mark.parametrize("after", range(1, 15) if FULL else [6])
def test_a_killed_run_finishes_with_the_same_pixels(tmp_path: Path, world: World, scenes: Scenes, after: int) -> None:
    quiet, killed = tmp_path / "quiet.zarr", tmp_path / "killed.zarr"
    run(plan_at(quiet, world, scenes))
    snapshot = scenes.save(tmp_path / "scenes.parquet")
    grid = world.region.geobox
    command = [sys.executable, "-W", "ignore", "-c", _JOB, str(snapshot), str(killed)]
    command += [str(tuple(grid.shape)), str(tuple(grid.affine)[:6]), str(grid.crs)]
    ledger = killed / "provenance" / "ledger"
    with subprocess.Popen(command) as job:
        deadline = time.monotonic() + 120
        while len(list(ledger.glob("*.parquet"))) < after:
            assert job.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.005)
        os.kill(job.pid, signal.SIGKILL)
    done = len(list(ledger.glob("*.parquet")))
    assert after <= done < 16
    # What was written is readable as it stands; the rest is missing and not zero.
    partial = xr.open_zarr(killed)["glacier_probability"].to_numpy()
    whole = xr.open_zarr(quiet)["glacier_probability"].to_numpy()
    there = np.isfinite(partial)
    np.testing.assert_array_equal(partial[there], whole[there])
    marked = {p: p.stat().st_mtime_ns for p in ledger.glob("*.parquet")}
    outcome = run(plan_at(killed, world, scenes))
    assert (outcome.computed, outcome.skipped) == (16 - done, done)
    assert {p: p.stat().st_mtime_ns for p in marked} == marked
    for name, (data, _) in shards(quiet).items():
        assert shards(killed)[name][0] == data, name


def test_another_grid_is_refused(tmp_path: Path, world: World, scenes: Scenes) -> None:
    run(plan_at(tmp_path / "a.zarr", world, scenes))
    before = shards(tmp_path / "a.zarr")
    other = Region("other", world.region.geobox.pad(1))
    plan = make_plan(other, scenes, load_model("ndsi"), StoreOptions(str(tmp_path / "a.zarr"), shard=48, chunk=48))
    with pytest.raises(GridMismatchError, match="made with another grid"):
        run(plan)
    assert shards(tmp_path / "a.zarr") == before


def test_a_scene_that_cannot_be_read_is_left_out_and_listed(tmp_path: Path, world: World, catalog: Path) -> None:
    copy = tmp_path / "world"
    shutil.copytree(catalog.parent, copy)
    scenes = find(copy / "catalog.json", world.region, "2021/2022", ["sentinel-2"])
    last = scenes.of("sentinel-2").table.iloc[-1]
    victim = Path(json.loads(last["item"])["assets"]["B11"]["href"])
    whole = victim.read_bytes()
    victim.write_bytes(whole[: len(whole) // 3])
    path = tmp_path / "a.zarr"
    done = run(plan_at(path, world, scenes))
    assert (done.computed, done.lacking) == (16, 4)
    told = missing_scenes(path)
    assert set(told["scene"]) == {last["id"]}
    assert set(told["failure"]) == {"permanent"}
    assert set(told["band"]) == {"swir16"}
    assert {str(time) for time in told["time"]} == {str(last["time"].tz_localize(None).floor("s"))}
    # It is as if the scene had not been found, with all its bands; the other granule of that day is there.
    rest = Scenes(scenes.table[scenes.table["id"] != last["id"]].reset_index(drop=True), scenes.source)
    run(plan_at(tmp_path / "b.zarr", world, rest))
    stored, wanted = open_store(path), open_store(tmp_path / "b.zarr")
    np.testing.assert_array_equal(stored["glacier_probability"], wanted["glacier_probability"])
    np.testing.assert_array_equal(stored["quality"], wanted["quality"])
    assert stored["glacier_probability"].isel(time=-1).isnull().any()
    # What was recorded counts as done, until it is asked for again.
    assert run(plan_at(path, world, scenes)).computed == 0
    victim.write_bytes(whole)
    again = run(plan_at(path, world, scenes), RunOptions(retry_missing=True))
    assert (again.computed, again.lacking) == (4, 0)
    assert missing_scenes(path).empty
    run(plan_at(tmp_path / "c.zarr", world, scenes))
    np.testing.assert_array_equal(
        open_store(path)["glacier_probability"], open_store(tmp_path / "c.zarr")["glacier_probability"]
    )


@pytest.mark.parametrize("broken", ["all", "B11"])
def test_a_loss_is_recorded_with_every_date_that_it_touches(
    tmp_path: Path, world: World, catalog: Path, broken: str
) -> None:
    """The mask of each date needs the classification of all: success and pixels are those of any batch of dates."""
    copy = tmp_path / "world"
    shutil.copytree(catalog.parent, copy)
    scenes = find(copy / "catalog.json", world.region, "2021/2022", ["sentinel-2"])
    victim = scenes.table.iloc[0]
    for name, asset in json.loads(victim["item"])["assets"].items():
        if broken in ("all", name) and asset["href"].endswith(".tif"):
            Path(asset["href"]).write_bytes(Path(asset["href"]).read_bytes()[:300])
    options = ComposeOptions(mask=MaskOptions(recover_ice="persistent"))
    stores = []
    for dates in (1, 4):
        path = tmp_path / f"{dates}.zarr"
        store = StoreOptions(str(path), shard=48, chunk=48)
        plan = make_plan(world.region, scenes, load_model("ndsi"), store, compose=options)
        outcome = run(plan, RunOptions(dates=dates))
        told = missing_scenes(path)
        assert outcome.computed == 16
        assert outcome.lacking == len(told) >= 3
        assert set(told["scene"]) == {victim["id"]}
        # The classification is what other dates need of it; the bands of a date are its own.
        assert told["time"].nunique() == (4 if broken == "all" else 1)
        assert run(plan).computed == 0
        stores.append((open_store(path), told.drop(columns=["band", "reason"])))
    assert stores[0][1].equals(stores[1][1])
    for name in ("glacier_probability", "quality"):
        np.testing.assert_array_equal(stores[0][0][name], stores[1][0][name])


def test_a_radar_scene_is_missing_from_all_that_are_averaged_with_it(
    tmp_path: Path, world: World, catalog: Path
) -> None:
    copy = tmp_path / "world"
    shutil.copytree(catalog.parent, copy)
    scenes = find(copy / "catalog.json", world.region, "2021/2022", ["sentinel-1"])
    victim = scenes.table.iloc[1]
    href = json.loads(victim["item"])["assets"]["vh"]["href"]
    Path(href).write_bytes(Path(href).read_bytes()[:300])
    found = []
    for dates in (1, 4):
        path = tmp_path / f"{dates}.zarr"
        radar = LoadOptions(radar=RadarOptions(multilook_dates=3, multilook_days=400))
        plan = make_plan(world.region, scenes, load_model("fusion-unet"), StoreOptions(str(path)), load=radar)
        touched = [label for label, ids in zip(plan.labels, plan.scene_ids, strict=True) if victim["id"] in ids]
        assert run(plan, RunOptions(dates=dates)).lacking == len(touched) > 1
        told = missing_scenes(path)
        assert [row_label(time) for time in told["time"].to_numpy()] == touched
        found.append(open_store(path)["glacier_probability"])
    np.testing.assert_array_equal(found[0], found[1])


def test_where_nothing_can_be_read_nothing_is_recorded(tmp_path: Path, world: World, catalog: Path) -> None:
    """A disk that is not mounted is not a year without glaciers."""
    copy = tmp_path / "world"
    shutil.copytree(catalog.parent, copy)
    scenes = find(copy / "catalog.json", world.region, "2021/2022", ["sentinel-2"])
    shutil.rmtree(copy)
    path = tmp_path / "a.zarr"
    with pytest.raises(ReadError, match=r"cannot read .*16 shards could not be made.*then run again") as caught:
        run(plan_at(path, world, scenes))
    assert caught.value.failure == "permanent"
    assert missing_scenes(path).empty
    assert (open_store(path)["quality"] == 0).all()


def test_without_its_ground_a_block_is_not_made(tmp_path: Path, world: World, catalog: Path) -> None:
    copy = tmp_path / "world"
    shutil.copytree(catalog.parent, copy)
    scenes = find(copy / "catalog.json", world.region, "2021/2022", ["sentinel-2", "dem"])
    for item in scenes.of("dem").table["item"]:
        Path(json.loads(item)["assets"]["data"]["href"]).write_bytes(b"no tiff")
    with pytest.raises(ReadError, match="cannot read"):
        run(plan_at(tmp_path / "a.zarr", world, scenes))
    assert (open_store(tmp_path / "a.zarr")["quality"] == 0).all()


_FULL = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
from glaciercube.cli import main
main(["run", sys.argv[1], "--quiet"])
"""


def test_a_full_disk_ends_in_one_sentence(tmp_path: Path, world: World, catalog: Path) -> None:
    """The kernel refuses to write files over a limit, as a full disk would."""
    west, south, east, north = world.region.bbox
    config = tmp_path / "job.yaml"

    def written_for(store: Path) -> None:
        config.write_text(
            f"region: {{bbox: [{west}, {south}, {east}, {north}], resolution: 10, buffer: 300, "
            f"crs: {world.region.geobox.crs}}}\n"
            f"catalog: {catalog}\ntime: 2021/2022\nsensors: [sentinel-2, dem]\nmodel: ndsi\n"
            f"store: {{path: {store}, shard: 256, chunk: 256}}\nrun: {{dates: 1, threads: 1}}\n"
        )

    def job(store: Path, limit: int) -> subprocess.CompletedProcess[str]:
        written_for(store)
        command = [sys.executable, "-W", "ignore", "-c", _FULL, str(config), str(limit)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def with_room(store: Path) -> None:
        written_for(store)
        done = CliRunner().invoke(main, ["run", str(config), "--quiet"])
        assert done.exit_code == 0, done.output

    with_room(tmp_path / "whole.zarr")
    sizes = {p: p.stat().st_size for p in (tmp_path / "whole.zarr").rglob("*") if p.is_file()}
    shard_sizes = sorted(size for path, size in sizes.items() if "/glacier_probability/c/" in str(path))
    others = max(size for path, size in sizes.items() if "/c/" not in str(path))
    # Room for everything but the largest shard of a date.
    limit = shard_sizes[-1] - 1
    assert limit > others, "the metadata is larger than a shard"
    store = tmp_path / "a.zarr"
    done = job(store, limit)
    assert done.returncode == 1, done.stderr
    (sentence,) = done.stderr.strip().splitlines()
    assert sentence.startswith(f"glaciercube: cannot write to the store {store}")
    assert "free space, then run again" in sentence
    # The store is readable, and room is all that it takes to finish.
    written = xr.open_zarr(store)["glacier_probability"].to_numpy()
    wanted = xr.open_zarr(tmp_path / "whole.zarr")["glacier_probability"].to_numpy()
    np.testing.assert_array_equal(written[np.isfinite(written)], wanted[np.isfinite(written)])
    with_room(store)
    np.testing.assert_array_equal(xr.open_zarr(store)["glacier_probability"], wanted)
    # No room even for the metadata: nothing is left in the way.
    assert job(tmp_path / "b.zarr", 500).returncode == 1
    with_room(tmp_path / "b.zarr")


def test_plans_explain_themselves(tmp_path: Path, world: World, catalog: Path) -> None:
    scenes = find(catalog, world.region, "2021/2022")
    plan = make_plan(world.region, scenes, load_model("fusion-unet"), StoreOptions(str(tmp_path / "a.zarr")))
    told = explain(plan)
    assert told.rows == 4
    assert told.scenes == {"dem": 4, "sentinel-1": len(scenes.of("sentinel-1")), "sentinel-2": 8}
    assert told.output_bytes == 2 * 4 * 80 * 80
    # 6 bands and SCL of 8 scenes, 2 polarisations of each radar companion, 4 DEM tiles; one cell each. The ground is
    # asked for twice: by itself, and with the dates for their hillshade.
    companions = sum(len(ids) for ids in plan.scene_ids) - 4 * 4 - 8
    assert told.reads == 8 * 7 + 2 * companions + 2 * 4
    assert told.left == 4
    assert "80 x 80 pixels of 20 m" in str(told)
    assert not (tmp_path / "a.zarr").exists()
    run(plan)
    assert explain(plan).left == 0
    assert explain(plan).reads == 0
    yearly = make_plan(
        world.region, scenes, load_model("ndsi"), StoreOptions(str(tmp_path / "a.zarr")), compose=ComposeOptions("year")
    )
    assert [row[:4] for row in yearly.labels] == ["2021", "2022"]
    assert set(yearly.keys).isdisjoint(plan.keys)


def test_a_store_error_stops_the_run(
    tmp_path: Path, world: World, scenes: Scenes, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def refuse(*_: Any) -> None:
        calls.append(1)
        raise StoreError("the disk is full", "free space")

    monkeypatch.setattr(ZarrHandle, "write", refuse)
    with pytest.raises(StoreError):
        run(plan_at(tmp_path / "a.zarr", world, scenes), RunOptions(threads=2))
    assert len(calls) < 4
