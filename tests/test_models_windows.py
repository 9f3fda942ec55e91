"""Models that see a whole window run in fixed windows, and one pixel has one value wherever it is computed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from conftest import FULL
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from glaciercube.errors import ModelError
from glaciercube.inference import BlockOptions, block_window, predict
from glaciercube.models import Contract, Modality, Windows
from glaciercube.models.base import GlacierModule, Masked, Model
from glaciercube.models.spectral import Identity


def contract_of(windows: Windows | None, *names: str, static: tuple[str, ...] = ()) -> Contract:
    modalities = [Modality(name, (name,), static=name in static) for name in (*names, *static)]
    field = "global" if windows else 0
    return Contract("test", "1", "test", tuple(modalities), receptive_field=field, windows=windows)  # type: ignore[arg-type]


class Average(GlacierModule):
    """Every pixel of a window gets the window's mean: nothing is more global."""

    def __init__(self) -> None:
        super().__init__()
        self.windows = 0

    def forward(self, dynamic: Mapping[str, Masked], static_features: Any, neighbours: Any = None) -> Tensor:
        self.windows += 1
        values, valid = dynamic["red"]
        mean = values.sum(dim=(1, 2, 3)) / valid.sum(dim=(1, 2, 3)).clamp(min=1)
        terrain = static_features["slope"].values.mean() if static_features else 0.0
        return (mean[:, None, None] + 0.1 * values[:, 0] + terrain).clamp(0, 1)


def cube_of(shape: tuple[int, int, int], seed: int = 0) -> xr.Dataset:
    rng = np.random.default_rng(seed)
    red = rng.random(shape, dtype=np.float32)
    red[rng.random(shape) < 0.1] = np.nan
    red[:, : shape[1] // 3, : shape[2] // 3] = np.nan
    coords = {"time": np.arange(shape[0]), "y": -10.0 * np.arange(shape[1]), "x": 10.0 * np.arange(shape[2])}
    slope = rng.random(shape[1:], dtype=np.float32)
    return xr.Dataset({"red": (("time", "y", "x"), red), "slope": (("y", "x"), slope)}, coords=coords)


@st.composite
def some_windows(draw: st.DrawFn) -> Windows:
    step = draw(st.integers(1, 12))
    parts = draw(st.integers(1, 4))
    margin = draw(st.integers(0, (parts - 1) * step // 2))
    return Windows(parts * step, step, draw(st.sampled_from([0.25, 0.5, 1.0])), margin)


@settings(max_examples=200 if FULL else 25, deadline=None)
@given(
    windows=some_windows(),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 50), st.integers(1, 50)),
    block=st.integers(12, 60),
    batch=st.integers(1, 3),
)
def test_the_identity_returns_its_input_for_every_size_and_overlap(
    windows: Windows, shape: tuple[int, int, int], block: int, batch: int
) -> None:
    contract = contract_of(windows, "red")
    model, cube = Model.from_module(contract, Identity(contract)), cube_of(shape)[["red"]]
    whole = model.predict({"red": torch.from_numpy(cube["red"].to_numpy())[:, None]}, {})
    np.testing.assert_array_equal(whole.numpy(), cube["red"])
    lazy = predict(cube, model, block=block, options=BlockOptions(batch=batch))["glacier_probability"]
    np.testing.assert_array_equal(lazy.compute(scheduler="synchronous"), cube["red"])


@pytest.mark.parametrize("windows", [Windows(24, 12), Windows(24, 8, sigma=0.5, margin=4), Windows(16, 16)])
def test_a_global_model_has_no_seams(windows: Windows) -> None:
    model = Model.from_module(contract_of(windows, "red", static=("slope",)), Average())
    cube = cube_of((2, 61, 47))
    whole = predict(cube, model, block=512)["glacier_probability"].compute(scheduler="synchronous").to_numpy()
    for block, batch in ((16, 1), (33, 2), (50, 1)):
        cut = predict(cube, model, block=block, options=BlockOptions(batch=batch))["glacier_probability"]
        np.testing.assert_array_equal(cut.compute(scheduler="synchronous"), whole)
    dynamic = {"red": torch.from_numpy(cube["red"].to_numpy())[:, None]}
    alone = model.predict(dynamic, {"slope": torch.from_numpy(cube["slope"].to_numpy())[None]})
    np.testing.assert_array_equal(alone.numpy(), whole)
    # The windows are what makes it so: cut into blocks without them, the maps differ.
    loose = Model.from_module(contract_of(None, "red", static=("slope",)), Average())
    a, b = (predict(cube, loose, block=n)["glacier_probability"].compute(scheduler="synchronous") for n in (512, 33))
    assert float(abs(a - b).max()) > 1e-3


def test_a_block_holds_the_windows_of_its_core_and_no_more() -> None:
    for windows in (Windows(24, 12), Windows(24, 8, margin=4), Windows(40, 10, margin=15)):
        contract, grid = contract_of(windows, "red"), 300
        for start, stop in ((0, 64), (64, 128), (101, 137), (36, 48), (299, 300)):
            span = block_window(
                slice(start, stop), slice(0, 1), (grid, grid), halo=contract.halo, stride=contract.lattice
            ).y
            first, last = span.start - span.before, span.stop + span.after
            held = [k for k in range(-50, 50) if first <= k * windows.step and k * windows.step + windows.size <= last]
            inner = windows.size - 2 * windows.margin
            begins = [(k, k * windows.step + windows.margin) for k in range(-50, 50)]
            assert held == [k for k, begin in begins if begin < stop and begin + inner > start]


def test_windows_without_evidence_are_not_computed() -> None:
    model = Model.from_module(contract_of(Windows(10, 10), "red"), Average())
    red = torch.full((1, 1, 40, 40), torch.nan)
    red[..., 12:15, 33:35] = 0.5
    found = model.predict({"red": red}, {})
    assert model.module.windows == 1
    assert torch.equal(found.isfinite(), red[:, 0].isfinite())
    assert model.predict({"red": red * torch.nan}, {}).isnan().all()


def test_windows_that_cannot_be_are_refused() -> None:
    with pytest.raises(ModelError, match="multiple of the step"):
        Windows(20, 8)
    with pytest.raises(ModelError, match="no less than the step"):
        Windows(24, 12, margin=8)
    with pytest.raises(ModelError, match="needs fixed windows"):
        Contract("m", "1", "a", (Modality("red", ("red",)),), receptive_field="global")
    with pytest.raises(ModelError, match="a finite one needs none"):
        Contract("m", "1", "a", (Modality("red", ("red",)),), receptive_field=3, windows=Windows(8, 8))
    model = Model.from_module(contract_of(Windows(10, 10), "red"), Average())
    with pytest.raises(ModelError, match="no whole number of windows"):
        model.predict({"red": torch.zeros(1, 1, 15, 20)}, model.encode_static({}, framed=True))


def test_the_contract_keeps_windows_in_its_item_and_hash() -> None:
    contract = contract_of(Windows(24, 8, sigma=0.5, margin=4), "red")
    assert Contract.from_mlm(contract.to_mlm()) == contract
    assert contract.fingerprint != contract_of(Windows(24, 8, sigma=1.0, margin=4), "red").fingerprint
