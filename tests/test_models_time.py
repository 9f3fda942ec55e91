"""Models of several dates: what a date may look at is stated in days, and nothing else changes its prediction."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import inputs_of, small_contract, small_model
from torch import Tensor

from glaciercube.errors import CubeError, ModelError
from glaciercube.inference import BlockOptions, block_window, encode_block, predict, predict_block
from glaciercube.models import Contract, TimeContext, load_model, save_model
from glaciercube.models.architectures.contracts import architecture_contract
from glaciercube.models.base import Model
from glaciercube.models.registry import build_module

BOTH = TimeContext(before=30.0, after=20.0, most=2)
DAYS = [0.0, 12.0, 24.0, 27.0, 60.0, 70.0]


@given(
    days=st.lists(st.integers(0, 400), min_size=1, max_size=30, unique=True),
    before=st.integers(0, 90),
    after=st.integers(0, 90),
    most=st.integers(1, 5),
    data=st.data(),
)
@settings(max_examples=60, deadline=None)
def test_the_context_of_a_date_depends_on_the_dates_within_reach_alone(
    days: list[int], before: int, after: int, most: int, data: st.DataObject
) -> None:
    context = TimeContext(before, after, most)
    target = data.draw(st.integers(0, len(days) - 1))
    chosen = context.choose([float(d) for d in days], target)
    assert len(chosen) == context.places
    assert chosen[context.earlier] == target
    found = [days[i] for i in chosen if i is not None]
    assert found == sorted(found)
    own = days[target]
    assert all(own - before < day < own + after or day == own for day in found)
    # In another order, and without the dates out of reach, it is the same.
    kept = sorted(day for day in days if own - before < day < own + after or day == own)
    again = context.choose([float(d) for d in kept], kept.index(own))
    assert [kept[i] for i in again if i is not None] == found
    # Nearest first: no date within reach lies nearer on that side than one that was taken.
    left_out = [day for day in kept if day not in found]
    assert all(min(found) > day or day > max(found) for day in left_out)


def model_of(context: TimeContext, name: str = "fusion-unet-time") -> Model:
    return small_model(name, time_context=context)


@pytest.fixture(scope="module")
def model() -> Model:
    return model_of(BOTH)


def block(contract: Contract, dates: int = len(DAYS)) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    return inputs_of(contract, dates, (20, 18))


def changed(dynamic: dict[str, Tensor], date: int) -> dict[str, Tensor]:
    found = {name: values.clone() for name, values in dynamic.items()}
    for values in found.values():
        values[date] = values[date].nan_to_num(0.1) * 0.5 + 0.05
    return found


def moved(model: Model, date: int) -> list[int]:
    """Dates whose prediction changes when one date's image does."""
    dynamic, static = block(model.contract)
    before = model.predict(dynamic, static, days=DAYS)
    after = model.predict(changed(dynamic, date), static, days=DAYS)
    both = before.isfinite() & after.isfinite()
    differ = ((before - after).abs() > 1e-4) & both
    return [i for i in range(len(DAYS)) if differ[i].any()]


@pytest.mark.parametrize("name", ["fusion-unet-time", "icemapper"])
def test_a_date_moves_those_that_have_it_in_their_context(name: str) -> None:
    model = model_of(BOTH, name)
    # Within 20 days before those that look ahead to it and 30 after, and among the two nearest on its side.
    assert moved(model, 0) == [0, 1, 2]
    assert moved(model, 3) == [1, 2, 3]
    assert moved(model, 5) == [4, 5]


def test_looking_back_only_a_later_date_changes_nothing() -> None:
    model = model_of(TimeContext(before=400.0, after=0.0, most=3))
    dynamic, static = block(model.contract)
    all_of_them = model.predict(dynamic, static, days=DAYS)
    first = model.predict({k: v[:4] for k, v in dynamic.items()}, static, days=DAYS[:4])
    torch.testing.assert_close(all_of_them[:4], first, rtol=0, atol=1e-6, equal_nan=True)


def test_rows_may_come_in_any_order(model: Model) -> None:
    dynamic, static = block(model.contract)
    expected = model.predict(dynamic, static, days=DAYS)
    order = [3, 0, 5, 1, 4, 2]
    mixed = model.predict({k: v[order] for k, v in dynamic.items()}, static, days=[DAYS[i] for i in order])
    torch.testing.assert_close(mixed, expected[order], rtol=0, atol=1e-6, equal_nan=True)


def test_with_the_weights_of_fusion_unet_it_begins_as_that_model() -> None:
    single = small_model("fusion-unet")
    contract = small_contract("fusion-unet-time", time_context=BOTH)
    module = build_module(contract)
    missing = module.load_state_dict(single.module.state_dict(), strict=False)
    assert not missing.unexpected_keys
    series = Model.from_module(contract, module)
    dynamic, static = block(contract)
    torch.testing.assert_close(
        series.predict(dynamic, static, days=DAYS), single.predict(dynamic, static), rtol=0, atol=1e-6, equal_nan=True
    )


def test_a_date_that_shows_nothing_is_as_if_it_were_not_there(model: Model) -> None:
    dynamic, static = block(model.contract)
    hidden = {name: values.clone() for name, values in dynamic.items()}
    for values in hidden.values():
        values[2] = torch.nan
    kept = [0, 1, 3, 4, 5]
    found = model.predict(hidden, static, days=DAYS)
    assert found[2].isnan().all()
    # Its place is taken by none: the context is chosen by time, not by what the images show.
    far = TimeContext(before=30.0, after=20.0, most=3)
    roomy = model_of(far)
    found = roomy.predict(hidden, static, days=DAYS)
    without = roomy.predict({k: v[kept] for k, v in dynamic.items()}, static, days=[DAYS[i] for i in kept])
    torch.testing.assert_close(found[kept], without, rtol=0, atol=1e-5, equal_nan=True)


def test_what_a_date_does_not_show_is_filled_only_if_the_contract_says_so() -> None:
    filling = model_of(dataclasses.replace(BOTH, fills=True))
    dynamic, static = block(filling.contract)
    for values in dynamic.values():
        values[1, :, :10] = torch.nan
    found = filling.predict(dynamic, static, days=DAYS)
    carrying = [values for name, values in dynamic.items() if filling.contract.modality(name).evidence]
    seen = torch.stack([values.isfinite().all(dim=1) for values in carrying]).any(dim=0)
    for date in range(len(DAYS)):
        near = [i for i in BOTH.choose(DAYS, date) if i is not None]
        assert torch.equal(found[date].isfinite(), seen[near].any(dim=0))
    assert found[1, :10].isfinite().any()
    plain = model_of(BOTH).predict(dynamic, static, days=DAYS)
    assert torch.equal(plain.isfinite(), seen)


def test_any_subset_of_sensors_and_one_date_will_do(model: Model) -> None:
    dynamic, static = block(model.contract, 1)
    for names in (("optical",), ("radar",), ("optical", "radar")):
        given_ = {name: dynamic[name] for name in names}
        for terrain in ({}, static):
            assert model.predict(given_, terrain).isfinite().any()
    assert model.predict({}, static).shape == (1, 20, 18)


def test_days_are_asked_for(model: Model) -> None:
    dynamic, static = block(model.contract)
    with pytest.raises(ModelError, match="not told when they were"):
        model.predict(dynamic, static)
    with pytest.raises(ModelError, match="2 days for 6 dates"):
        model.predict(dynamic, static, days=[0.0, 1.0])
    with pytest.raises(ModelError, match="at least one date"):
        TimeContext(before=10.0, after=0.0, most=0)
    with pytest.raises(ModelError, match="it takes single dates"):
        architecture_contract("deeplab", time_context=BOTH)


def test_the_time_context_is_kept_in_item_hash_and_folder(model: Model, tmp_path: object) -> None:
    contract = model.contract
    assert Contract.from_mlm(contract.to_mlm()) == contract
    other = dataclasses.replace(contract, time_context=dataclasses.replace(BOTH, fills=True))
    assert other.fingerprint != contract.fingerprint
    assert load_model(save_model(model, f"{tmp_path}/model")).contract == contract


def cube_of(dynamic: dict[str, Tensor], static: dict[str, Tensor], contract: Contract) -> xr.Dataset:
    layers: dict[str, tuple[tuple[str, ...], Any]] = {}
    for modality in contract.modalities:
        values = (static if modality.static else dynamic)[modality.name]
        for variable, layer in zip(modality.variables, values.unbind(dim=-3), strict=True):
            layers[variable] = (("time", "y", "x")[-layer.ndim :], layer.numpy())
    height, width = next(iter(static.values())).shape[-2:]
    time = np.datetime64("2020-07-01", "ns") + (np.array(DAYS) * 86400e9).astype("timedelta64[ns]")
    return xr.Dataset(layers, coords={"time": time, "y": -10.0 * np.arange(height), "x": 10.0 * np.arange(width)})


@pytest.mark.parametrize(
    ("name", "fills"), [("fusion-unet-time", False), ("fusion-unet-time", True), ("icemapper", False)]
)
def test_a_cube_gives_each_date_its_neighbours_however_it_is_cut(name: str, fills: bool) -> None:
    model = model_of(dataclasses.replace(BOTH, fills=fills), name)
    dynamic, static = inputs_of(model.contract, len(DAYS), (40, 37))
    if not static:
        static = {"none": torch.zeros(1, 40, 37)}
    cube = cube_of(dynamic, static, model.contract)
    whole = predict(cube, model, block=64, dates=6, options=BlockOptions(batch=6)).compute(scheduler="synchronous")
    for block_, dates, batch in ((16, 1, 1), (25, 4, 3)):
        cut = predict(cube, model, block=block_, dates=dates, options=BlockOptions(batch=batch))
        found = cut.compute(scheduler="synchronous")
        np.testing.assert_allclose(found["glacier_probability"], whole["glacier_probability"], rtol=0, atol=2e-5)
        np.testing.assert_array_equal(found["quality"], whole["quality"])
    # Its neighbours do matter.
    alone = predict(cube.isel(time=[1]), model).compute(scheduler="synchronous")
    assert float(abs(alone["glacier_probability"] - whole["glacier_probability"].isel(time=[1])).max()) > 1e-4


def test_where_neighbours_are_not_read_the_model_is_refused(model: Model) -> None:
    dynamic, static = block(model.contract, 1)
    cube = cube_of({k: v.expand(len(DAYS), -1, -1, -1) for k, v in dynamic.items()}, static, model.contract)
    window = block_window(slice(0, 20), slice(0, 18), (20, 18), halo=0, stride=1)
    arrays = {str(name): cube[name].isel(time=[0]).to_numpy() for name in cube if "time" in cube[name].dims}
    encoded = encode_block(model, {}, window, BlockOptions())
    with pytest.raises(ModelError, match="looks at dates beside each date"):
        predict_block(model, arrays, encoded, window, BlockOptions(), 1)
    with pytest.raises(CubeError, match="datetime64"):
        predict(cube.assign_coords(time=np.arange(len(DAYS))), model)
