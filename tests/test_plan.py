"""Planning: units open their own scenes and give the region's pixels; a plan says what it costs before it runs."""

from __future__ import annotations

import functools
import json
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from textwrap import dedent
from typing import Any

import geopandas
import numpy as np
import pytest
import shapely
import shapely.geometry
import xarray as xr
from conftest import FULL
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glaciercube.bench.units import measure
from glaciercube.campaign import Plan, RunOptions, Unit, explain, make_plan
from glaciercube.campaign import candidates as candidates_room
from glaciercube.campaign.budget import Budget, Prices
from glaciercube.campaign.candidates import PlanOptions
from glaciercube.campaign.kernel import Kernel
from glaciercube.campaign.lacking import Witnesses
from glaciercube.campaign.task import tasks
from glaciercube.campaign.unit import UnitJob, frame_of, skeleton, unit_cube, unit_job
from glaciercube.catalog import Scenes, find
from glaciercube.cube import ComposeOptions, LoadOptions, compose, load
from glaciercube.cube.masks import MaskOptions
from glaciercube.cube.radar import RadarOptions
from glaciercube.errors import ConfigError, PlanError
from glaciercube.inference import BlockOptions, block_window
from glaciercube.models import load_model
from glaciercube.models.base import Model
from glaciercube.models.contract import Contract
from glaciercube.reading import reader
from glaciercube.reading.warp import warp_onto
from glaciercube.region import Region
from glaciercube.simulate.world import World
from glaciercube.store import StoreOptions

READ: dict[Any, Any] = {}
SENSORS = ("sentinel-2", "sentinel-1", "dem")
LOADS = {
    "plain": LoadOptions(cell=16),
    "large": LoadOptions(cell=37),
    "small": LoadOptions(cell=11, radar=RadarOptions(speckle="mean", window=25)),
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


@pytest.fixture(scope="module")
def parted(scenes: Scenes, world: World) -> Scenes:
    """The same, but that one tile's granules, and one radar pass, are said to show the west only."""
    west, south, east, north = world.region.bbox
    half = shapely.box(west - 0.1, south - 0.1, west + 0.4 * (east - west), north + 0.1)
    table = scenes.table.copy()
    last = table.loc[table["sensor"] == "sentinel-1", "id"].iloc[-1]
    for place in np.flatnonzero(table["id"].str.contains("T06VWM") | (table["id"] == last)):
        item = json.loads(table.loc[place, "item"])
        item["geometry"], item["bbox"] = shapely.geometry.mapping(half), list(half.bounds)
        table.loc[place, "item"] = json.dumps(item)
        table.loc[place, "geometry"] = half
    return replace(scenes, table=table)


@pytest.fixture
def sharp(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a world of 800 m, footprints would all be near."""
    monkeypatch.setattr(candidates_room, "MARGIN", 20.0)


@pytest.fixture(autouse=True)
def remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """A read that was made before is not made again: the same cell, to the last bit, of the same file."""

    def warp(path: Any, geobox: Any, **how: Any) -> Any:
        key = (str(path), tuple(geobox.affine), tuple(geobox.shape), str(geobox.crs), *map(str, how.values()))
        if key not in READ:
            READ[key] = warp_onto(path, geobox, **how)
        return READ[key].copy()

    monkeypatch.setattr(reader, "warp_onto", warp)


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


@settings(max_examples=300 if FULL else 4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    loading=st.sampled_from(sorted(LOADS)),
    composing=st.sampled_from(sorted(COMPOSES)),
    shard=st.sampled_from([16, 21, 32, 80]),
    halo=st.integers(0, 9),
    stride=st.sampled_from([1, 2, 8]),
    data=st.data(),
)
def test_a_unit_has_the_pixels_of_the_whole_region(  # noqa: PLR0917 - what hypothesis draws
    world: World,
    parted: Scenes,
    loading: str,
    composing: str,
    shard: int,
    halo: int,
    stride: int,
    data: Any,
) -> None:
    scenes = parted
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
    high, wide = world.region.geobox.shape
    window = block_window(y, x, (high, wide), halo=halo, stride=stride)
    wanted = whole_cube(scenes, world, loading, composing).isel(time=rows, y=window.y.read, x=window.x.read)
    assert_equal_bits(found.compute(scheduler="synchronous"), wanted)


@pytest.mark.usefixtures("sharp")
def test_a_unit_opens_only_scenes_that_come_near_it(world: World, parted: Scenes) -> None:
    # The ground looks half a kilometre around, which is most of this world.
    parted = replace(parted, table=parted.table[parted.table["sensor"] != "dem"].reset_index(drop=True))
    plan = plan_of(world, parted, shard=16, load=LoadOptions(cell=16, radar=RadarOptions(border_noise=False)))
    optical = parted.of("sentinel-2").table
    row = 1
    of_row = set(plan.scene_ids[row]) & set(optical["id"])
    spoken_for = set(optical["id"].iloc[[0]])  # one stands for the sensor, whatever the rows
    opened = {
        block: set(unit_job(plan, Unit(block, (row,))).scenes.of("sentinel-2").table["id"]) - spoken_for
        for block in ((0, 0), (0, 4))
    }
    assert len(of_row) == 2
    assert opened[0, 0] == of_row
    assert opened[0, 4] == {name for name in of_row if "T06VVM" in name}


def test_a_job_is_small_and_can_be_sent(world: World, scenes: Scenes) -> None:
    plan = plan_of(world, scenes)
    unit = Unit((1, 1), (0, 2))
    job = unit_job(plan, unit)
    sent = pickle.dumps(job)
    assert len(sent) < 15_000 + 6_000 * len(job.scenes)
    again: UnitJob = pickle.loads(sent)  # noqa: S301 - ours
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


def test_explaining_counts_what_is_read_and_what_it_costs(world: World, scenes: Scenes) -> None:
    plan = plan_of(world, scenes)
    told = explain(plan, RunOptions(threads=2))
    assert told.units == 9
    assert told.tasks <= 4 * told.units
    assert told.left == 36
    assert told.ram_bytes > told.unit_bytes > 0
    assert told.hours * 2 == pytest.approx(told.core_hours)
    assert told.usd == pytest.approx(told.core_hours * 0.048 + told.output_bytes * 0.023e-9)
    dear = explain(plan, RunOptions(threads=2), Budget(prices=Prices(core_hour=4.8)))
    assert dear.usd > 50 * told.usd
    for word in ("scenes", "reads", "memory", "time", "output", "USD, an estimate"):
        assert word in str(told)


@pytest.mark.parametrize(
    ("model", "composing", "dates"),
    [("ndsi", "persistent", 2), *([("fusion-unet", "observation", 4)] if FULL else [])],
)
def test_reads_are_said_as_they_are_made(
    world: World, scenes: Scenes, monkeypatch: pytest.MonkeyPatch, model: str, composing: str, dates: int
) -> None:
    made = []

    def read_nothing(uri: str, geobox: Any, *, dtype: Any, **how: Any) -> Any:  # noqa: ARG001 - as `read_cell`
        made.append(uri)
        return np.full(geobox.shape, 5, dtype)

    monkeypatch.setattr(reader, "read_cell", read_nothing)
    plan = plan_of(world, scenes, model=load_model(model), load=LOADS["plain"], compose=COMPOSES[composing])
    kernel = Kernel(plan.model, BlockOptions(), Witnesses.of(plan), 2)
    for unit in plan.units():
        for task in tasks(plan, unit, dates):
            kernel.read(task)
    told = explain(plan, RunOptions(dates=dates))
    # More than is read are tiles of the ground whose cells are the tile's own, and cross-polarised cells at borders.
    assert len(made) <= told.reads <= 1.1 * len(made)


def test_a_run_holds_what_was_said_however_long_its_time_axis(tmp_path: Path) -> None:
    found = {}
    for dates in (8, 64 if FULL else 16):
        command = [sys.executable, "-W", "ignore", "-m", "glaciercube.bench.memory", "flat", str(tmp_path), str(dates)]
        found[dates] = json.loads(subprocess.check_output(command, text=True))
        assert 0.8 <= found[dates]["ratio"] <= 1.2, found
    short, long = (each["above_mb"] for each in found.values())
    assert long <= 1.15 * short, found


def test_a_cluster_is_given_few_tasks_for_each_unit() -> None:
    found = measure(16, cluster=True)
    assert found["units"] == 16
    assert 1 <= found["tasks_per_unit"] <= 4


def test_a_plan_over_budget_is_refused_with_the_worst_first(world: World, scenes: Scenes) -> None:
    plan = plan_of(world, scenes)
    told = explain(plan)
    budget = Budget(ram_gb=told.ram_bytes / 2e9, output_gb=told.output_bytes / 1e10, hours=1e6)
    with pytest.raises(PlanError, match=r"over budget: .* GB written of .*\(10.0 times\); .*GB of memory of") as caught:
        explain(plan, budget=budget)
    assert "fewer dates, a smaller region" in caught.value.remedy
    with pytest.raises(ConfigError, match="budget usd -1 is not an amount"):
        Budget(usd=-1)


def with_outlines(region: Region, box: tuple[float, float, float, float]) -> Region:
    frame = geopandas.GeoDataFrame({"outline": ["one"]}, geometry=[shapely.box(*box)], crs=str(region.geobox.crs))
    return replace(region, outlines=frame)


def test_shards_far_from_outlines_are_left_out_and_flagged(world: World, scenes: Scenes) -> None:
    bounds = world.region.geobox.boundingbox
    small = (bounds.left + 5, bounds.top - 10, bounds.left + 10, bounds.top - 5)
    region = with_outlines(world.region, small)
    store = StoreOptions("/nowhere/a.zarr", shard=16, chunk=16)
    made = functools.partial(make_plan, region, scenes, load_model("ndsi"), store)
    plan = made(options=PlanOptions(buffer=400.0))
    work = {unit.block for unit in plan.units() if not unit.skip}
    # Shards are 320 m wide: the first corner's, and those that begin within 400 m; the next across is 440 m away.
    assert work == {(0, 0), (0, 1), (1, 0)}
    left_out = [unit for unit in plan.units() if unit.skip]
    assert {unit.block for unit in left_out} == set(plan.blocks) - work
    every = [(unit.block, row) for unit in plan.units() for row in unit.rows]
    assert sorted(every) == sorted((block, row) for block in plan.blocks for row in range(len(plan.rows)))
    assert {unit.skip for unit in made(options=PlanOptions("all")).units()} == {False}
    assert {unit.skip for unit in plan_of(world, scenes, shard=16).units()} == {False}
    # What was left out is done; it is computed once it becomes a candidate, and nothing computed is thrown away.
    keys = [
        (plan.labels[row], unit.block, key)
        for unit in plan.units()
        for row, key in zip(unit.rows, plan.unit_keys(unit), strict=True)
    ]
    assert not list(plan.units(keys))
    wider = made(options=PlanOptions(buffer=1000.0))
    again = {unit.block for unit in wider.units(keys)}
    assert again == {unit.block for unit in wider.units() if not unit.skip} - work
    full = [(plan.labels[row], block, plan.keys[row]) for block in plan.blocks for row in range(len(plan.rows))]
    assert not list(plan.units(full))


@pytest.mark.usefixtures("sharp")
def test_dates_that_show_nothing_of_a_shard_are_left_out(world: World, parted: Scenes) -> None:
    only = Scenes(parted.table[parted.table["id"].str.contains("T06VWM")].reset_index(drop=True), parted.source)
    plan = plan_of(world, only, shard=16, load=LoadOptions(cell=16))
    seen = {unit.block[1] for unit in plan.units() if not unit.skip}
    assert seen == {0, 1, 2}
    # A model that knows ice by terrain alone is asked all the same.
    both = Scenes(
        parted.table[parted.table["id"].str.contains("T06VWM") | (parted.table["sensor"] == "dem")].reset_index(
            drop=True
        ),
        parted.source,
    )
    fusion = plan_of(world, both, shard=16, model=load_model("fusion-unet"))
    assert {unit.skip for unit in fusion.units()} == {False}


def test_units_are_made_on_threads(world: World, scenes: Scenes) -> None:
    """GEOS crashes where two threads are the first to ask of one prepared geometry."""
    program = dedent("""
        import pickle, sys
        from concurrent.futures import ThreadPoolExecutor
        from glaciercube.campaign.candidates import Lattice, Sight
        from glaciercube.cube.coverage import coverage
        import numpy as np
        scenes, region = pickle.load(sys.stdin.buffer)
        shapes = scenes.table.geometry.to_numpy()
        x0, y0, x1, y1 = region.geobox.boundingbox
        lattice = Lattice(np.array([x0]), np.array([x1]), np.array([y0]), np.array([y1]))
        def ask(sight):
            for _ in range(3):
                sight.meets(np.arange(len(shapes)), (x0, y0, x1, y1))
                coverage(scenes, region.geobox)
        with ThreadPoolExecutor(4) as pool:
            for _ in range(40):
                sight = Sight(shapes, region)
                sight.blocks(lattice)
                list(pool.map(ask, [sight] * 4))
    """)
    command = [sys.executable, "-W", "ignore", "-c", program]
    done = subprocess.run(command, input=pickle.dumps((scenes, world.region)), check=False, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
