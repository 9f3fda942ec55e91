"""A run on a cluster: the same bits as on threads, whichever workers die."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import dask
import geopandas
import pytest
import shapely
import xarray as xr
from clusters import local, moved, other_worker, workers_of
from distributed import Client, WorkerPlugin

from glaciercube.campaign import Outcome, Plan, PlanOptions, RunOptions, make_plan, run
from glaciercube.campaign.events import read_events
from glaciercube.campaign.task import tasks
from glaciercube.catalog import Scenes, find
from glaciercube.cluster import ClusterOptions, address_of
from glaciercube.config import load_config
from glaciercube.errors import ClusterError, ReadError
from glaciercube.inference import NOT_CANDIDATE, BlockOptions
from glaciercube.models import load_model
from glaciercube.models.registry import save_model
from glaciercube.simulate.world import World
from glaciercube.store import StoreOptions, missing_scenes, open_store
from glaciercube.store.zarrstore import ZarrStore


@pytest.fixture(scope="module")
def scenes(world: World, catalog: Path) -> Scenes:
    return find(catalog, world.region, "2021/2022", ["sentinel-2"])


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with local(2) as client:
        yield client


def plan_at(path: Path | str, world: World, scenes: Scenes, model: str = "ndsi", **store: Any) -> Plan:
    options = StoreOptions(str(path), **{"shard": 48, "chunk": 48, **store})
    return make_plan(world.region, scenes, load_model(model), options)


def pixels(path: Path) -> dict[str, bytes]:
    files = [p for name in ("glacier_probability", "quality") for p in (path / name / "c").rglob("*") if p.is_file()]
    return {str(p.relative_to(path)): p.read_bytes() for p in files}


def test_a_cluster_gives_the_bits_that_threads_give(
    tmp_path: Path, world: World, catalog: Path, client: Client
) -> None:
    scenes = find(catalog, world.region, "2021", ["sentinel-2", "dem"])
    threads, cluster = (
        plan_at(tmp_path / f"{name}.zarr", world, scenes, "fusion-unet") for name in ("threads", "cluster")
    )
    run(threads)
    outcome = run(cluster, cluster=client)
    assert (outcome.computed, outcome.skipped) == (8, 0)
    assert pixels(tmp_path / "cluster.zarr") == pixels(tmp_path / "threads.zarr")
    # Workers are alike: what one reads it predicts and writes.
    assert moved(client) == {}
    assert run(cluster, cluster=client).computed == 0


def test_the_event_log_tells_what_each_unit_took(tmp_path: Path, world: World, scenes: Scenes, client: Client) -> None:
    run(plan_at(tmp_path / "a.zarr", world, scenes), RunOptions(dates=2), cluster=client)
    events = read_events(tmp_path / "a.zarr.events.jsonl")
    assert [events[0]["event"], events[-1]["event"]] == ["began", "ended"]
    assert (events[0]["left"], events[-1]["computed"], events[-1]["failed"]) == (16, 16, 0)
    by_step = {name: [e for e in events if e["event"] == name] for name in ("started", "read", "predicted", "written")}
    assert {name: len(found) for name, found in by_step.items()} == dict.fromkeys(by_step, 8)
    assert {e["worker"] for e in by_step["predicted"]} <= workers_of(client)
    # Two units per thread are under way, and no more.
    under_way = [{"started": 1, "written": -1}.get(e["event"], 0) for e in events]
    assert max(accumulate(under_way)) == 4
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
    with local(2) as client, killing(client, log, [3, 8]) as killed:
        outcome = run(plan_at(store, world, scenes), RunOptions(dates=1, events=str(log)), cluster=client)
    assert len(killed) == 2
    assert outcome.computed == 16
    assert pixels(store) == pixels(quiet)
    # A busy machine may lose another by itself.
    assert sum(e["event"] == "worker-lost" for e in read_events(log)) >= 2
    assert run(plan_at(store, world, scenes)).computed == 0


def test_a_unit_that_kills_workers_is_reported_and_the_rest_is_done(
    tmp_path: Path, world: World, scenes: Scenes, caplog: pytest.LogCaptureFixture
) -> None:
    class Poison(WorkerPlugin):  # defined here, so that it travels by value
        def setup(self, worker: Any) -> None:
            from glaciercube.campaign.kernel import Kernel

            predict = Kernel.predict

            def deadly(self: Any, inputs: Any, device: Any = None) -> Any:
                if inputs.task.unit.block == (1, 1):
                    os.kill(os.getpid(), signal.SIGKILL)
                return predict(self, inputs, device)

            Kernel.predict = deadly  # type: ignore[method-assign]

    path = tmp_path / "a.zarr"
    with dask.config.set({"distributed.scheduler.allowed-failures": 0}), local(2) as client:
        client.register_plugin(Poison(), name="poison")
        with pytest.raises(ClusterError, match=r"1 worker died of it.*then run again"):
            run(plan_at(path, world, scenes), cluster=client)
    events = read_events(tmp_path / "a.zarr.events.jsonl")
    assert [(e["block"], e["kind"]) for e in events if e["event"] == "failed"] == [([1, 1], "cluster")]
    assert (events[-1]["event"], events[-1]["computed"], events[-1]["failed"]) == ("stopped", 12, 4)
    assert "shard (1, 1) of" in caplog.text
    # The next run does what is left.
    outcome = run(plan_at(path, world, scenes))
    assert (outcome.computed, outcome.skipped) == (4, 12)
    run(plan_at(tmp_path / "quiet.zarr", world, scenes))
    assert pixels(path) == pixels(tmp_path / "quiet.zarr")


def test_what_cannot_be_read_is_recorded_and_what_may_be_read_later_is_not_done(
    tmp_path: Path, world: World, catalog: Path, client: Client
) -> None:
    copy = tmp_path / "world"
    shutil.copytree(catalog.parent, copy)
    scenes = find(copy / "catalog.json", world.region, "2021/2022", ["sentinel-2"])
    last = scenes.of("sentinel-2").table.iloc[-1]
    victim = Path(json.loads(last["item"])["assets"]["B11"]["href"])
    victim.write_bytes(victim.read_bytes()[:5000])
    outcomes = [
        run(plan_at(tmp_path / name, world, scenes), cluster=on)
        for name, on in (("threads.zarr", None), ("cluster.zarr", client))
    ]
    assert [(o.computed, o.lacking) for o in outcomes] == [(16, 4)] * 2
    assert pixels(tmp_path / "cluster.zarr") == pixels(tmp_path / "threads.zarr")
    assert missing_scenes(tmp_path / "cluster.zarr").equals(missing_scenes(tmp_path / "threads.zarr"))
    # Without any of its files it is the disk's fault, and nothing is recorded.
    shutil.rmtree(copy)
    with pytest.raises(ReadError, match="16 shards could not be made"):
        run(plan_at(tmp_path / "gone.zarr", world, scenes), cluster=client)
    assert missing_scenes(tmp_path / "gone.zarr").empty
    assert (open_store(tmp_path / "gone.zarr")["quality"] == 0).all()


def test_an_icechunk_store_is_committed_by_the_driver(
    tmp_path: Path, world: World, scenes: Scenes, client: Client
) -> None:
    run(plan_at(tmp_path / "a.icechunk", world, scenes, kind="icechunk"), RunOptions(dates=2), cluster=client)
    run(plan_at(tmp_path / "b.zarr", world, scenes))
    xr.testing.assert_identical(
        open_store(tmp_path / "a.icechunk").drop_attrs().drop_vars("provenance", errors="ignore").load(),
        open_store(tmp_path / "b.zarr").drop_attrs().drop_vars("provenance", errors="ignore").load(),
    )


_JOB = """
import sys
from glaciercube.cli import main
if __name__ == "__main__":
    main(["run", sys.argv[1], "--quiet"])
"""


def test_ctrl_c_ends_cleanly_and_the_next_run_goes_on(tmp_path: Path, world: World, catalog: Path) -> None:
    west, south, east, north = world.region.bbox
    config, script, store = tmp_path / "job.yaml", tmp_path / "job.py", tmp_path / "a.zarr"
    script.write_text(_JOB)
    config.write_text(
        f"region: {{bbox: [{west}, {south}, {east}, {north}], resolution: 20, crs: {world.region.geobox.crs}}}\n"
        f"catalog: {catalog}\ntime: 2021/2022\nsensors: [sentinel-2, dem]\nmodel: ndsi\n"
        f"store: {{path: {store}, shard: 32, chunk: 32}}\nrun: {{dates: 1}}\ncluster: {{kind: local, workers: 2}}\n"
    )
    log = tmp_path / "a.zarr.events.jsonl"
    command = [sys.executable, "-W", "ignore", str(script), str(config)]
    # A group of its own: a terminal sends Ctrl-C to all processes of the foreground.
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as job:
        deadline = time.monotonic() + 120
        while not (log.exists() and sum(e["event"] == "written" for e in read_events(log)) >= 5):
            assert job.poll() is None, job.stderr and job.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.killpg(job.pid, signal.SIGINT)
        _, said = job.communicate(timeout=60)
    assert job.returncode == 130, said
    assert said.strip().splitlines()[-1] == "glaciercube: stopped: run again to go on where it ended."
    assert "Traceback" not in said
    (last,) = read_events(log)[-1:]
    assert last["event"] == "stopped"
    # What was committed is not done again, and nobody holds the lease.
    job_again = load_config(config)
    again = run(job_again.plan(), job_again.run)
    assert (again.computed, again.skipped) == (36 - last["computed"], last["computed"])
    assert last["computed"] >= 5


def test_predictions_stay_on_workers_with_the_resource(tmp_path: Path, world: World, scenes: Scenes) -> None:
    options = RunOptions(dates=1, block=BlockOptions(device="cpu"))
    with local(1, resources={"GPU": 1}) as client:
        (gpu,) = workers_of(client)
        with other_worker(client) as other:
            cluster = ClusterOptions(address_of(client), resource="GPU")
            run(plan_at(tmp_path / "a.zarr", world, scenes), options, cluster=cluster)
            travelled = moved(client)
    events = read_events(tmp_path / "a.zarr.events.jsonl")
    where = {name: [e["worker"] for e in events if e["event"] == name] for name in ("read", "predicted")}
    assert set(where["predicted"]) == {gpu}
    # The other reads for it, and what it read travels once.
    assert other in where["read"]
    read_there = sum(e["bytes"] for e in events if e["event"] == "read" and e["worker"] == other)
    assert 0 < travelled.pop("glaciercube-read") < 1.1 * read_there
    # A result may be written by the other where the first is busy; nothing else moves.
    assert set(travelled) <= {"glaciercube-predict"}


def test_where_all_have_the_resource_nothing_travels(
    tmp_path: Path, world: World, scenes: Scenes, client: Client
) -> None:
    async def give(dask_worker: Any, amount: float) -> None:
        await dask_worker.set_resources(GPU=amount)

    before = moved(client)
    client.run(give, amount=1.0)
    try:
        cluster = ClusterOptions(address_of(client), resource="GPU")
        options = RunOptions(dates=1, block=BlockOptions(device="cpu"))
        run(plan_at(tmp_path / "a.zarr", world, scenes), options, cluster=cluster)
    finally:
        client.run(give, amount=0.0)
    events = read_events(tmp_path / "a.zarr.events.jsonl")
    by_unit: dict[Any, set[str]] = {}
    for event in (e for e in events if e["event"] in ("read", "predicted", "written")):
        by_unit.setdefault((*event["block"], *event["rows"]), set()).add(event["worker"])
    assert len(by_unit) == 16
    assert all(len(workers) == 1 for workers in by_unit.values())
    assert set().union(*by_unit.values()) == workers_of(client)
    assert moved(client) == before == {}


_OTHER_VERSIONS = """
from distributed import versions

def other(name, installed=versions._version_cached):
    return "0.1" if name == "xarray" else installed(name)

versions._version_cached = other

# Nor can it open what another version pickled.
from glaciercube.campaign.task import Task

def unknown(self, state):
    raise AttributeError("what is this?")

Task.__setstate__ = unknown
"""


def waits(come: Path) -> WorkerPlugin:
    """Lets a run begin, and a worker go on with a fourth task only when a file has come."""

    class Waits(WorkerPlugin):  # defined here, so that it travels by value
        def setup(self, worker: Any) -> None:
            from glaciercube.campaign.kernel import Kernel

            read, begun = Kernel.read, []

            def slow(self: Any, task: Any) -> Any:
                begun.append(task)
                while len(begun) > 3 and not come.exists():
                    time.sleep(0.05)
                return read(self, task)

            Kernel.read = slow  # type: ignore[method-assign]

    return Waits()


@contextmanager
def begun(plan: Plan, client: Client, come: Path, where: ClusterOptions | None = None) -> Iterator[Future[Outcome]]:
    """A run that has written something, and goes on when the context's body has made `come`."""
    client.register_plugin(waits(come), name="waits")
    log = Path(f"{plan.store.path}.events.jsonl")
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(run, plan, RunOptions(dates=1), cluster=where or client)
        try:
            while not (log.exists() and any(e["event"] == "written" for e in read_events(log))):
                assert not done.done(), done.exception()
                time.sleep(0.05)
            yield done
        finally:
            # Whatever happens, the run must end.
            come.touch()


def test_workers_that_come_late_do_their_share_if_they_are_fit(
    tmp_path: Path, world: World, catalog: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scenes = find(catalog, world.region, "2021", ["sentinel-2"])
    come, preload = tmp_path / "come", tmp_path / "preload.py"
    preload.write_text(_OTHER_VERSIONS)

    folder = save_model(load_model("fusion-unet"), tmp_path / "mine")
    plan = plan_at(tmp_path / "a.zarr", world, scenes, str(folder))
    shutil.rmtree(folder)
    # What travels with a task says nothing of weights.
    (first_task, *_) = tasks(plan, next(plan.units()), 4)
    assert len(pickle.dumps(first_task)) < 200_000
    with local(1) as client, ExitStack() as stack:
        (first,) = workers_of(client)
        done = stack.enter_context(begun(plan, client, come))
        fit = stack.enter_context(other_worker(client))
        unfit = stack.enter_context(other_worker(client, "--no-nanny", "--preload", str(preload)))
        come.touch()
        assert done.result(timeout=250).computed == 8
        assert workers_of(client) == {first, fit}
    log = tmp_path / "a.zarr.events.jsonl"
    # The weights came to it, though nobody has their folder any more.
    assert {e["worker"] for e in read_events(log) if e["event"] == "predicted"} == {first, fit}
    assert f"the worker {unfit} has xarray 0.1 and the run has {xr.__version__}: it is sent away" in caplog.text
    run(plan_at(tmp_path / "b.zarr", world, scenes, "fusion-unet"))
    assert pixels(tmp_path / "a.zarr") == pixels(tmp_path / "b.zarr")


def test_a_model_is_loaded_once_and_remembers_what_fits(
    tmp_path: Path, world: World, scenes: Scenes, client: Client
) -> None:
    class Small(WorkerPlugin):  # defined here, so that it travels by value
        """A stand-in for a device that holds one date: by it, no CUDA is needed to run out of its memory."""

        name = "small"

        def setup(self, worker: Any) -> None:
            import torch

            from glaciercube.models.base import Model

            self.kept = Model.predict, Model.from_module
            predict, make = self.kept
            worker.seen, worker.loads = [], 0

            def small(self: Any, dynamic: Any, static: Any, **days: Any) -> Any:
                (optical, *_) = dynamic.values()
                worker.seen.append((tuple(optical.shape[2:]), len(optical)))
                if len(optical) > 1:
                    raise torch.OutOfMemoryError("stand-in")
                return predict(self, dynamic, static, **days)

            def made(*arguments: Any) -> Any:
                worker.loads += 1
                return make(*arguments)

            Model.predict, Model.from_module = small, made  # type: ignore[method-assign, assignment]

        def teardown(self, worker: Any) -> None:
            from glaciercube.models.base import Model

            Model.predict, Model.from_module = self.kept  # type: ignore[method-assign]

    model = load_model("ndsi", threshold=0.37)
    client.register_plugin(Small())
    try:
        for name in ("a.zarr", "b.zarr"):
            options = StoreOptions(str(tmp_path / name), shard=48, chunk=16)
            run(make_plan(world.region, scenes, model, options), RunOptions(dates=4), cluster=client)
        seen = client.run(lambda dask_worker: dask_worker.seen)
        assert set(client.run(lambda dask_worker: dask_worker.loads).values()) == {1}
    finally:
        client.unregister_worker_plugin("small")
    tried = 0
    for batches in seen.values():
        for shape in {shape for shape, _ in batches}:
            dates = [count for found, count in batches if found == shape]
            # Found out by the first block of a size, and remembered for all that come after it, in the second run, too.
            assert dates[:2] == [4, 2]
            assert set(dates[2:]) == {1}
            tried += len(dates) - 2
    # Two runs of four dates of four shards.
    assert tried == 32
    run(make_plan(world.region, scenes, model, StoreOptions(str(tmp_path / "c.zarr"), shard=48, chunk=16)))
    assert pixels(tmp_path / "a.zarr") == pixels(tmp_path / "b.zarr") == pixels(tmp_path / "c.zarr")


def elsewhere(folder: Path) -> list[str]:
    """Within this a program sees the same paths, but another disk behind one of them."""
    command = ["unshare", "--mount", "sh", "-c", f'mount -t tmpfs none "{folder}" && exec "$@"', "sh"]
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        pytest.skip("a worker cannot be given another disk here: unshare and mount need root")
    return command


def test_a_worker_with_another_disk_is_refused_before_anything_runs(
    tmp_path: Path, world: World, scenes: Scenes, client: Client
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with (
        other_worker(client, "--no-nanny", within=elsewhere(out)) as other,
        pytest.raises(ClusterError, match=rf"the worker {other} on \S+ does not see .*out/a\.zarr, which is a path"),
    ):
        run(plan_at(out / "a.zarr", world, scenes), cluster=client)
    assert list(out.iterdir()) == []


def test_a_worker_with_another_disk_that_comes_late_is_sent_away(
    tmp_path: Path, world: World, scenes: Scenes, caplog: pytest.LogCaptureFixture
) -> None:
    out, come = tmp_path / "out", tmp_path / "come"
    out.mkdir()
    with local(1) as client, ExitStack() as stack:
        done = stack.enter_context(begun(plan_at(out / "a.zarr", world, scenes), client, come))
        other = stack.enter_context(other_worker(client, "--no-nanny", within=elsewhere(out)))
        come.touch()
        assert done.result(timeout=100).computed == 16
        assert other not in workers_of(client)
    assert f"the worker {other} does not see {out / 'a.zarr'}, which is a path of the run's machine" in caplog.text


def test_a_run_whose_devices_are_gone_says_so(tmp_path: Path, world: World, scenes: Scenes) -> None:
    async def take(dask_worker: Any) -> None:
        await dask_worker.set_resources(GPU=0)

    come = tmp_path / "come"
    with local(1, resources={"GPU": 1}) as client:
        where = ClusterOptions(address_of(client), resource="GPU", wait=2)
        with begun(plan_at(tmp_path / "a.zarr", world, scenes), client, come, where) as done:
            client.run(take)
            come.touch()
            with pytest.raises(ClusterError, match="has had no worker with the resource GPU for 2 s"):
                done.result(timeout=100)


def test_levels_are_built_when_the_cluster_is_gone(
    tmp_path: Path, world: World, scenes: Scenes, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []

    @contextmanager
    def lent(given: Any) -> Iterator[Client]:  # noqa: ARG001 - as `connect`
        yield client
        said.append("given back")

    build = ZarrStore.build_levels

    def built(self: ZarrStore) -> list[str]:
        said.append("built")
        return build(self)

    monkeypatch.setattr(sys.modules["glaciercube.campaign.run"], "connect", lent)
    monkeypatch.setattr(ZarrStore, "build_levels", built)
    run(plan_at(tmp_path / "a.zarr", world, scenes), RunOptions(levels=True), cluster=client)
    assert said == ["given back", "built"]


def test_what_holds_nothing_is_one_task_for_any_worker(
    tmp_path: Path, world: World, scenes: Scenes, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = world.region.geobox.boundingbox
    corner = shapely.box(box.left + 5, box.top - 10, box.left + 10, box.top - 5)
    outlines = geopandas.GeoDataFrame({"outline": ["one"]}, geometry=[corner], crs=str(world.region.geobox.crs))
    region, options = replace(world.region, outlines=outlines), StoreOptions(str(tmp_path / "a.zarr"), 32, 32)
    plan = make_plan(region, scenes, load_model("ndsi"), options, options=PlanOptions(buffer=400.0))
    submitted: list[tuple[bool, int, Any]] = []
    submit = Client.submit

    def seen(self: Client, function: Any, name: str, task: Any, **how: Any) -> Any:
        if isinstance(task, bytes):
            unit = pickle.loads(task).unit  # noqa: S301 - made by our own driver
            submitted.append((unit.skip, len(unit.rows), how.get("resources")))
        return submit(self, function, name, task, **how)

    monkeypatch.setattr(Client, "submit", seen)
    with local(1, resources={"GPU": 1}) as client:
        cluster = ClusterOptions(address_of(client), resource="GPU")
        run(plan, RunOptions(dates=1, block=BlockOptions(device="cpu")), cluster=cluster)
    nothing = [unit for unit in plan.units() if unit.skip]
    assert nothing
    assert [each for each in submitted if each[0]] == [(True, len(plan.rows), None)] * len(nothing)
    assert all(rows == 1 and needs for skip, rows, needs in submitted if not skip)
    store = open_store(tmp_path / "a.zarr")
    last = {"y": slice(-32, None), "x": slice(-32, None)}
    assert store["glacier_probability"].isel(last).isnull().all()
    assert (store["quality"].isel(last) & NOT_CANDIDATE != 0).all()
