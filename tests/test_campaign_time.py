"""Models that look at several dates, and models of fixed windows, through plan and run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_models import small_model

from glaciercube.campaign import Plan, RunOptions, explain, make_plan, run
from glaciercube.campaign.kernel import Kernel
from glaciercube.campaign.lacking import Witnesses
from glaciercube.campaign.left import what_is_left
from glaciercube.campaign.task import tasks
from glaciercube.catalog import Scenes, find
from glaciercube.cube import compose, load
from glaciercube.errors import ReadError
from glaciercube.inference import BlockOptions, predict
from glaciercube.models import TimeContext, load_model
from glaciercube.models.base import Model
from glaciercube.models.registry import save_model
from glaciercube.simulate.world import World
from glaciercube.store import StoreOptions, open_store
from glaciercube.store.layout import pack

NEAR = TimeContext(before=400.0, after=400.0, most=1)


@pytest.fixture(scope="module")
def scenes(world: World, catalog: Path) -> Scenes:
    return find(catalog, world.region, "2021/2022", ["sentinel-2", "dem"])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("model") / "time"
    save_model(small_model("fusion-unet-time", time_context=NEAR), folder, card="# small")
    return load_model(str(folder))


def plan_at(path: Path, world: World, scenes: Scenes, model: Model) -> Plan:
    return make_plan(world.region, scenes, model, StoreOptions(str(path), shard=48, chunk=48))


def test_a_run_stores_what_predict_gives(tmp_path: Path, world: World, scenes: Scenes, model: Model) -> None:
    plan = plan_at(tmp_path / "a.zarr", world, scenes, model)
    assert len(plan.rows) > 3
    run(plan, RunOptions(dates=4, threads=2))
    wanted = predict(compose(load(scenes, world.region)), model, dates=3).compute()
    found = open_store(tmp_path / "a.zarr")
    np.testing.assert_allclose(found["glacier_probability"], wanted["glacier_probability"], atol=0.002001)
    np.testing.assert_array_equal(found["quality"], wanted["quality"])


def test_a_global_model_runs_in_its_windows(tmp_path: Path, world: World, scenes: Scenes) -> None:
    save_model(small_model("segformer"), tmp_path / "model", card="# small")
    plan = plan_at(tmp_path / "a.zarr", world, scenes, load_model(str(tmp_path / "model")))
    run(plan)
    wanted = predict(compose(load(scenes, world.region)), plan.model, block=48).compute()["glacier_probability"]
    found = open_store(tmp_path / "a.zarr")["glacier_probability"].to_numpy()
    assert np.abs(pack(found.astype(np.float32)).astype(int) - pack(wanted.to_numpy()).astype(int)).max() <= 1


def test_a_new_date_changes_those_that_look_at_it(tmp_path: Path, world: World, scenes: Scenes, model: Model) -> None:
    whole = plan_at(tmp_path / "a.zarr", world, scenes, model)
    gone = 2
    own = set(whole.scene_ids[gone]) - whole.ground_ids
    table = scenes.table[~scenes.table["id"].isin(own)].reset_index(drop=True)
    part = plan_at(tmp_path / "a.zarr", world, replace(scenes, table=table), model)
    run(part)
    left = what_is_left(whole)
    changed = {row for row, context in enumerate(whole.contexts) if gone in context}
    # Those that looked past the gap look at the new date instead.
    assert set(np.flatnonzero(left.todo.any(axis=0)).tolist()) == changed
    assert 0 < len(changed) < len(whole.rows)
    run(whole)
    wanted = predict(compose(load(scenes, world.region)), model).compute()["glacier_probability"]
    np.testing.assert_allclose(open_store(tmp_path / "a.zarr")["glacier_probability"], wanted, atol=0.002001)


def test_a_date_that_cannot_be_read_fails_those_that_look_at_it(
    tmp_path: Path, world: World, scenes: Scenes, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_at(tmp_path / "a.zarr", world, scenes, model)
    unit = next(unit for unit in plan.units() if not unit.skip)
    (task,) = tasks(plan, unit, len(unit.rows))
    kernel = Kernel(model, BlockOptions(device="cpu"), Witnesses.of(plan), 2)
    compute = kernel._reading.compute
    bad = task.scenes[1]

    def failing(part: Any, rows: Any, *others: Any) -> Any:
        if bad in rows:
            raise ReadError("it is away", "wait", failure="transient", uri="file:///x", scene=bad[0], band="red")
        return compute(part, rows, *others)

    monkeypatch.setattr(kernel._reading, "compute", failing)
    inputs = kernel.read(task)
    lost = {row for row, context in zip(unit.rows, task.contexts, strict=True) if 1 in context}
    assert {row for row, _ in inputs.failures} == lost
    assert set(inputs.task.unit.rows) == set(unit.rows) - lost
    outputs = kernel.predict(inputs)
    monkeypatch.undo()
    whole = kernel.predict(kernel.read(task))
    kept = [i for i, row in enumerate(unit.rows) if row not in lost]
    np.testing.assert_allclose(outputs.probability, whole.probability[kept], atol=1e-5)


def test_explain_counts_the_dates_beside(tmp_path: Path, world: World, scenes: Scenes, model: Model) -> None:
    single = plan_at(tmp_path / "a.zarr", world, scenes, load_model("fusion-unet"))
    several = plan_at(tmp_path / "b.zarr", world, scenes, model)
    options = RunOptions(dates=1)
    assert explain(several, options).reads > 1.5 * explain(single, options).reads
