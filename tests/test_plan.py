"""Planning: units open their own scenes and give the region's pixels; a plan says what it costs before it runs."""

from __future__ import annotations

import functools
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from conftest import FULL
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glaciercube.campaign import Plan, Unit, make_plan
from glaciercube.campaign import candidates as candidates_room
from glaciercube.campaign.unit import UnitJob, frame_of, skeleton, unit_cube, unit_job
from glaciercube.catalog import Scenes, find
from glaciercube.cube import ComposeOptions, LoadOptions, compose, load
from glaciercube.cube.masks import MaskOptions
from glaciercube.cube.radar import RadarOptions
from glaciercube.inference import block_window
from glaciercube.models import load_model
from glaciercube.models.base import Model
from glaciercube.models.contract import Contract
from glaciercube.simulate.world import World
from glaciercube.store import StoreOptions

SENSORS = ("sentinel-2", "sentinel-1", "dem")
LOADS = {
    "plain": LoadOptions(cell=16),
    "large": LoadOptions(cell=37),
    "small": LoadOptions(cell=5, radar=RadarOptions(speckle="mean", window=13)),
    "lee": LoadOptions(cell=16, radar=RadarOptions(multilook_dates=3, speckle="lee", border_reach=8)),
    "bare": LoadOptions(cell=24, radar=RadarOptions(border_noise=False)),
}
COMPOSES = {
    "observation": ComposeOptions(),
    "dilated": ComposeOptions(mask=MaskOptions(dilate=70.0)),
    "persistent": ComposeOptions(mask=MaskOptions(recover_ice="persistent", persistent_share=0.5)),
    "month": ComposeOptions(every="month", mask=MaskOptions(dilate=30.0)),
    "year": ComposeOptions(every="year"),
    "near": ComposeOptions(max_age=2.0, min_coverage=0.9),
}


@pytest.fixture(scope="module")
def scenes(world: World, catalog: Path) -> Scenes:
    return find(catalog, world.region, "2021/2022", list(SENSORS))


@pytest.fixture
def sharp(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a world of 800 m, footprints would all be near."""
    monkeypatch.setattr(candidates_room, "MARGIN", 20.0)


def halo_model(halo: int, stride: int) -> Model:
    model = load_model("ndsi")
    fields = {name: getattr(model.contract, name) for name in Contract.__dataclass_fields__}
    return Model.from_module(Contract(**{**fields, "receptive_field": halo, "stride": stride}), model.module)


def plan_of(world: World, scenes: Scenes, *, model: Model | None = None, shard: int = 32, **options: Any) -> Plan:
    store = StoreOptions("/nowhere/a.zarr", shard=shard, chunk=shard)
    return make_plan(world.region, scenes, model or load_model("ndsi"), store, **options)


@functools.cache
def whole_cube(scenes: Scenes, world: World, loading: str, composing: str) -> xr.Dataset:
    cube = compose(load(scenes, world.region, LOADS[loading]), COMPOSES[composing])
    return cube.compute(scheduler="synchronous")


def assert_equal_bits(found: xr.Dataset, wanted: xr.Dataset) -> None:
    assert set(found.variables) == set(wanted.variables)
    for name in wanted.variables:
        one, other = found[name].to_numpy(), wanted[name].to_numpy()
        assert one.dtype.kind == other.dtype.kind, name
        assert found[name].dims == wanted[name].dims, name
        np.testing.assert_array_equal(one, other, err_msg=str(name))


@settings(
    max_examples=300 if FULL else 12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    loading=st.sampled_from(sorted(LOADS)),
    composing=st.sampled_from(sorted(COMPOSES)),
    shard=st.sampled_from([16, 21, 32, 80]),
    halo=st.integers(0, 9),
    stride=st.sampled_from([1, 2, 8]),
    data=st.data(),
)
def test_a_unit_has_the_pixels_of_the_whole_region(
    world: World, scenes: Scenes, sharp: None, loading: str, composing: str, shard: int, halo: int, stride: int, data: Any
) -> None:
    plan = plan_of(
        world,
        scenes,
        model=halo_model(halo, stride),
        shard=shard,
        load=LOADS[loading],
        compose=COMPOSES[composing],
    )
    block = data.draw(st.sampled_from(plan.blocks))
    rows = sorted(data.draw(st.sets(st.integers(0, len(plan.rows) - 1), min_size=1, max_size=3)))
    found = unit_cube(plan, Unit(block, tuple(rows)))
    y, x = plan.slices(block)
    window = block_window(y, x, tuple(world.region.geobox.shape), halo=halo, stride=stride)
    wanted = whole_cube(scenes, world, loading, composing).isel(time=rows, y=window.y.read, x=window.x.read)
    assert_equal_bits(found.compute(scheduler="synchronous"), wanted)


def test_a_unit_opens_only_scenes_that_come_near_it(world: World, scenes: Scenes, sharp: None) -> None:
    plan = plan_of(world, scenes, shard=16, load=LoadOptions(cell=16))
    jobs = {block: unit_job(plan, Unit(block, (1,))) for block in plan.blocks}
    opened = {block: set(job.scenes.of("sentinel-2").table["id"]) for block, job in jobs.items()}
    of_row = set(plan.scene_ids[1]) & set(scenes.of("sentinel-2").table["id"])
    assert all(len(ids - of_row) <= 1 for ids in opened.values())  # one may stand for the sensor
    assert min(map(len, opened.values())) < max(map(len, opened.values()))


def test_a_job_is_small_and_can_be_sent(world: World, scenes: Scenes) -> None:
    plan = plan_of(world, scenes)
    unit = Unit((1, 1), (0, 2))
    job = unit_job(plan, unit)
    sent = pickle.dumps(job)
    assert len(sent) < 15_000 + 6_000 * len(job.scenes)
    again: UnitJob = pickle.loads(sent)
    assert_equal_bits(again.cube().compute(scheduler="synchronous"), job.cube().compute(scheduler="synchronous"))
    frame = frame_of(plan, unit.block)
    assert again.frame == frame


@pytest.mark.parametrize("composing", sorted(COMPOSES))
def test_the_skeleton_has_all_variables_and_rows(world: World, scenes: Scenes, composing: str) -> None:
    plan = plan_of(world, scenes, compose=COMPOSES[composing])
    found, wanted = skeleton(plan), whole_cube(scenes, world, "plain", composing)
    assert set(found.variables) == set(wanted.variables)
    for name, variable in wanted.variables.items():
        if variable.dims[:1] == ("time",) and set(variable.dims) <= {"time", "bnds"}:
            np.testing.assert_array_equal(found[name], wanted[name])
