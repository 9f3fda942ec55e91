"""Ensembles, dropout at prediction and adapted statistics are models like any other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from small_models import days_of, inputs_of, small_model

from glaciercube.errors import GlaciercubeError, ModelError
from glaciercube.inference import predict
from glaciercube.inference.uncertain import adapt_to_cube, predict_spread
from glaciercube.models.adapt import Block, adapt
from glaciercube.models.base import Model
from glaciercube.models.classes import GROUND, Output
from glaciercube.models.dropout import with_dropout
from glaciercube.models.ensemble import ensemble, members_of, spread
from glaciercube.models.registry import load_model, pack_model, save_model, unpack_model
from glaciercube.training.scaling import Scaling, rescaled

FIVE: dict[str, Any] = {"classes": GROUND, "outputs": (Output(classes=("clean_ice", "debris_covered_ice")),)}
SIDE = 32


def said(model: Model, seed: int = 0, **more: Any) -> torch.Tensor:
    dynamic, static = inputs_of(model.contract, 2, (SIDE, SIDE), seed)
    return model.predict(dynamic, static, **days_of(model.contract, 2), **more)


def cube(model: Model, size: int = 24) -> xr.Dataset:
    dynamic, static = inputs_of(model.contract, 2, (size, size), 5)
    layers = {
        name: (("time", "y", "x") if not m.static else ("y", "x"), part[..., i, :, :].numpy())
        for m in model.contract.modalities
        for i, name in enumerate(m.variables)
        for part in [static[m.name] if m.static else dynamic[m.name]]
    }
    times = np.array(["2020-07-01", "2020-07-11"], "datetime64[ns]")
    return xr.Dataset(layers, {"time": times, "y": -10.0 * np.arange(size), "x": 10.0 * np.arange(size)})


def made(kind: str, name: str = "fusion-unet", **more: Any) -> Model:
    if kind == "ensemble":
        return ensemble([small_model(name, seed, **more) for seed in range(3)])
    rate = None if name in ("glavitu", "deeplab", "segformer") else 0.2
    return with_dropout(small_model(name, **more), passes=3, seed=7, rate=rate)


@pytest.mark.parametrize(
    ("kind", "name", "more"),
    [
        ("ensemble", "fusion-unet", FIVE),
        ("dropout", "fusion-unet", {}),
        ("ensemble", "fusion-unet-time", {}),
        ("dropout", "deeplab", {}),
    ],
)
def test_the_mean_is_that_of_the_members_and_folders_keep_it(
    kind: str, name: str, more: dict[str, Any], tmp_path: Path
) -> None:
    model = made(kind, name, **more)
    parts = members_of(model)
    assert len({part.hash for part in parts}) == len(parts) == 3
    if kind == "ensemble":
        inputs = inputs_of(model.contract, 2, (SIDE, SIDE))
        each = [part.predict(*inputs, **days_of(model.contract, 2)) for part in parts]
    else:
        each = [said(part) for part in parts]
    mean, deviation = spread(each)
    assert float(torch.nan_to_num(deviation).max()) > 1e-3  # they do differ
    torch.testing.assert_close(said(model), mean, atol=1e-5, rtol=0, equal_nan=True)
    again = load_model(save_model(model, tmp_path / "model"))
    assert again.hash == model.hash
    assert torch.equal(torch.nan_to_num(said(again)), torch.nan_to_num(said(model)))
    sent = unpack_model(pack_model(model))
    assert sent.hash == model.hash


@pytest.mark.parametrize("kind", ["ensemble", "dropout"])
def test_pixels_do_not_depend_on_blocks_or_dates(kind: str) -> None:
    model = made(kind)
    here = cube(model)
    whole = predict(here, model, block=32)["glacier_probability"].to_numpy()
    cut = predict(here, model, block=16, dates=1)["glacier_probability"].to_numpy()
    np.testing.assert_allclose(whole, cut, atol=1e-5)


def test_members_normalise_for_themselves() -> None:
    one, other = small_model("deeplab", 0), small_model("deeplab", 1)
    moved = tuple(replace(m, mean=tuple(0.9 * v for v in m.mean), clip=(-2.0, 2.0)) for m in other.contract.modalities)
    other = Model.from_module(replace(other.contract, modalities=moved), other.module)
    both = ensemble([one, other])
    dynamic, static = inputs_of(one.contract, 1, (SIDE, SIDE))
    mean = (one.predict(dynamic, static) + other.predict(dynamic, static)) / 2
    torch.testing.assert_close(both.predict(dynamic, static), mean, atol=1e-5, rtol=0, equal_nan=True)


def test_an_ensemble_is_calibrated_as_a_whole() -> None:
    model = made("ensemble")
    p, q = said(model).double(), said(rescaled(model, Scaling(2.0, 0.5))).double()
    known = torch.isfinite(p)
    torch.testing.assert_close(torch.logit(q[known]), torch.logit(p[known]) / 2 + 0.5, atol=1e-3, rtol=1e-3)
    five = made("ensemble", **FIVE)
    inputs = inputs_of(five.contract, 1, (SIDE, SIDE))
    before = five.predict_classes(*inputs).nan_to_num(0.2)
    after = rescaled(five, Scaling(1.0, 1.0)).predict_classes(*inputs).nan_to_num(0.2)
    odds = [each[:, 1:3].sum(dim=1) / (1 - each[:, 1:3].sum(dim=1)) for each in (before, after)]
    raised = torch.isfinite(said(five))[:1] & (before[:, 1] != 0.2)
    torch.testing.assert_close(odds[1][raised], torch.e * odds[0][raised], atol=1e-3, rtol=1e-3)


def test_dropout_is_of_its_seed_and_leaves_channels_out_on_average() -> None:
    base = small_model("fusion-unet")
    one, same, other = (with_dropout(base, passes=2, seed=seed, rate=0.3) for seed in (1, 1, 2))
    assert torch.equal(torch.nan_to_num(said(one)), torch.nan_to_num(said(same)))
    assert not torch.allclose(torch.nan_to_num(said(one)), torch.nan_to_num(said(other)), atol=1e-3)
    assert one.hash == same.hash != other.hash
    # The model itself is left as it was, and passes differ less the fewer channels are left out.
    before = said(base)
    deviations = []
    for rate in (0.02, 0.3):
        dropped = with_dropout(base, passes=8, seed=1, rate=rate)
        deviations.append(float(torch.nan_to_num(spread([said(m) for m in members_of(dropped)])[1]).mean()))
    assert deviations[0] < deviations[1] / 2
    assert torch.equal(torch.nan_to_num(said(base)), torch.nan_to_num(before))


def test_what_does_not_fit_together_is_refused() -> None:
    one = small_model("fusion-unet")
    with pytest.raises(GlaciercubeError, match="an ensemble of 1"):
        ensemble([one])
    with pytest.raises(ModelError, match="other classes"):
        ensemble([one, small_model("fusion-unet", **FIVE)])
    with pytest.raises(ModelError, match="other time context"):
        ensemble([one, small_model("fusion-unet-time")])
    with pytest.raises(ModelError, match="is one model"):
        members_of(one)
    with pytest.raises(ModelError, match="has no dropout layers"):
        with_dropout(one)
    with pytest.raises(ModelError, match="has dropout layers"):
        with_dropout(small_model("deeplab"), rate=0.1)


def test_adapted_statistics_are_the_blocks_and_the_trainings() -> None:
    model = small_model("fusion-unet")
    dynamic, static = inputs_of(model.contract, 2, (SIDE, SIDE), 3)
    dynamic = {name: 1.5 * values for name, values in dynamic.items() if name != "radar"}
    block = Block(dynamic, static)
    none, half, full = (adapt(model, [block], share=share) for share in (0.0, 0.5, 1.0))
    assert none.hash == model.hash  # nothing taken from the blocks is the model itself
    states = [each.module.state_dict() for each in (model, half, full)]
    moved = [name for name in states[0] if not torch.equal(states[0][name], states[2][name])]
    assert moved
    assert all("running" in name and "radar" not in name for name in moved)  # weights, and the absent radar's, stay
    for name in moved:
        torch.testing.assert_close(states[1][name], (states[0][name] + states[2][name]) / 2, atol=1e-5, rtol=1e-4)
    # With its own statistics alone the block's features are normalised: what the module does in training.
    train = Model.from_module(model.contract, adapt(model, [block], share=0.0).module)
    train.module.train()
    torch.testing.assert_close(
        train.predict(dynamic, static), full.predict(dynamic, static), atol=5e-3, rtol=0, equal_nan=True
    )
    with pytest.raises(GlaciercubeError, match="no block"):
        adapt(model, [])
    with pytest.raises(ModelError, match="no batch normalisation"):
        adapt(load_model("band-ratio"), [block])


def test_a_cube_gets_its_spread_and_its_own_statistics() -> None:
    model = made("ensemble")
    here = cube(model)
    found = predict_spread(here, model)
    each = np.stack([predict(here, part)["glacier_probability"].to_numpy() for part in members_of(model)])
    np.testing.assert_allclose(found["spread"], each.std(axis=0), atol=1e-6)
    np.testing.assert_allclose(found["glacier_probability"], each.mean(axis=0), atol=1e-5)
    one = members_of(model)[0]
    adapted = adapt_to_cube(one, here, share=0.5)
    assert adapted.hash == adapt_to_cube(one, here, share=0.5).hash != one.hash
    whole, cut = (predict(here, adapted, block=side)["glacier_probability"].to_numpy() for side in (32, 16))
    np.testing.assert_allclose(whole, cut, atol=1e-5)
    assert not np.allclose(whole, each[0], atol=0.01, equal_nan=True)
