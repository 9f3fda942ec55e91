"""predict(): lazy, without seams, whatever the size, the chunks and the batch."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from typing import Any

import dask
import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from glaciercube.errors import CubeError, ModelError
from glaciercube.inference import BlockOptions, block_window, choose_device, predict, predict_block
from glaciercube.inference.block import encode_block
from glaciercube.models import load_model
from glaciercube.models.base import GlacierModule, Masked, Model
from glaciercube.models.contract import Contract, Modality

OPTICAL = ("blue", "green", "red", "nir", "swir16", "swir22")


def cube_of(shape: tuple[int, int, int], names: tuple[str, ...] = ("red",), seed: int = 0) -> xr.Dataset:
    rng = np.random.default_rng(seed)
    data: dict[str, Any] = {}
    for name in names:
        values = rng.random(shape, dtype=np.float32)
        values[rng.random(shape) < 0.05] = np.nan
        data[name] = (("time", "y", "x"), values)
    coords = {"time": np.arange(shape[0]), "y": -10.0 * np.arange(shape[1]), "x": 10.0 * np.arange(shape[2])}
    return xr.Dataset(data, coords=coords)


@settings(max_examples=400 if os.environ.get("GLACIERCUBE_FULL") else 40, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 5), st.integers(1, 70), st.integers(1, 70)),
    block=st.integers(1, 80),
    dates=st.integers(1, 6),
    batch=st.integers(1, 4),
    chunk=st.integers(1, 40) | st.none(),
)
def test_identity_returns_its_input(
    shape: tuple[int, int, int], block: int, dates: int, batch: int, chunk: int | None
) -> None:
    cube = cube_of(shape)
    # Blocks of a pixel would make thousands of tasks and show no more.
    block = max(block, max(shape[1:]) // 6)
    lazy = cube if chunk is None else cube.chunk(time=1, y=max(chunk, shape[1] // 5), x=max(chunk, shape[2] // 5))
    found = predict(
        lazy, load_model("identity", variable="red"), block=block, dates=dates, options=BlockOptions(batch=batch)
    )
    assert isinstance(found["glacier_probability"].data, dask.array.Array)
    np.testing.assert_array_equal(found["glacier_probability"].compute(scheduler="synchronous"), cube["red"])


def test_network_has_no_seams() -> None:
    """A convolutional network with strides gives one map, however it is cut."""
    model = _strided_model()
    cube = cube_of((3, 101, 77), OPTICAL)
    whole = predict(cube, model, block=512)["glacier_probability"].compute()
    for block, batch in ((16, 1), (33, 2), (64, 3)):
        cut = predict(cube, model, block=block, options=BlockOptions(batch=batch))["glacier_probability"].compute()
        np.testing.assert_allclose(cut, whole, atol=2e-6)
    # The halo is what makes it so: without it the seams are there.
    bare = Model.from_module(Contract(**{**_fields(model.contract), "receptive_field": 0}), model.module)
    seams = predict(cube, bare, block=16)["glacier_probability"].compute()
    assert float(abs(seams - whole).max()) > 1e-3


def _fields(contract: Contract) -> dict[str, Any]:
    return {name: getattr(contract, name) for name in contract.__dataclass_fields__}


class _Strided(GlacierModule):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.down = torch.nn.Conv2d(7, 8, 3, padding=1, stride=2)
        self.mid = torch.nn.Conv2d(8, 8, 3, padding=1)
        self.up = torch.nn.ConvTranspose2d(8, 1, 2, stride=2)
        self.encoded = 0

    def encode_static(self, static: Mapping[str, Masked]) -> Any:
        self.encoded += 1
        return None

    def forward(self, dynamic: Mapping[str, Masked], static_features: Any) -> torch.Tensor:
        optical = dynamic["optical"]
        x = torch.cat([optical.values, optical.valid.to(optical.values.dtype)], dim=1)
        return torch.sigmoid(self.up(torch.relu(self.mid(torch.relu(self.down(x))))))[:, 0]


def _strided_model() -> Model:
    contract = Contract("strided", "1", "strided", (Modality("optical", OPTICAL),), receptive_field=6, stride=2)
    return Model.from_module(contract, _Strided())


def test_static_branch_runs_once_per_block() -> None:
    model = _strided_model()
    cube = cube_of((7, 40, 40), OPTICAL)
    predict(cube, model, block=20, dates=2, options=BlockOptions(batch=1)).compute(scheduler="synchronous")
    assert model.module.encoded == 4


def test_missing_evidence_is_missing_and_said() -> None:
    cube = cube_of((2, 20, 20), ("blue", "red", "swir16"))
    flags = np.where(np.isfinite(cube["red"]), 1, 0).astype("uint8")
    flags[1, :5] |= 2
    cube["optical_flags"] = (("time", "y", "x"), flags)
    found = predict(cube, load_model("band-ratio")).compute()
    gone = cube["red"].isnull() | cube["blue"].isnull() | cube["swir16"].isnull()
    np.testing.assert_array_equal(found["glacier_probability"].isnull(), gone)
    quality = found["quality"]
    assert ((quality & 1) == 1).all()
    np.testing.assert_array_equal((quality & 2) > 0, flags & 1)
    np.testing.assert_array_equal((quality & 4) > 0, (flags & 2) > 0)


def test_out_of_memory_halves_the_batch(caplog: pytest.LogCaptureFixture) -> None:
    sizes: list[int] = []

    class Greedy(_Strided):
        def forward(self, dynamic: Mapping[str, Masked], static_features: Any) -> torch.Tensor:
            sizes.append(len(dynamic["optical"].values))
            if sizes[-1] > self.fits:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().forward(dynamic, static_features)

        fits = 2

    module = Greedy()
    model = Model.from_module(_strided_model().contract, module)
    cube = cube_of((5, 16, 16), OPTICAL)
    whole = predict(cube, _strided_model())["glacier_probability"].compute()
    found = predict(cube, model, options=BlockOptions(batch=5))["glacier_probability"].compute(scheduler="synchronous")
    np.testing.assert_allclose(found, whole, atol=2e-6)
    assert sizes == [5, 2, 2, 1]
    assert "out of device memory" in caplog.text
    # It is remembered.
    sizes.clear()
    predict(cube, model, options=BlockOptions(batch=5)).compute(scheduler="synchronous")
    assert sizes == [2, 2, 1]
    module.fits = 0
    with pytest.raises(ModelError, match="does not hold one date"):
        predict(cube, model).compute(scheduler="synchronous")


def test_block_gives_what_the_lazy_surface_gives() -> None:
    model, cube = _strided_model(), cube_of((2, 50, 50), OPTICAL)
    whole = predict(cube, model)["glacier_probability"].compute().to_numpy()
    window = block_window(slice(16, 40), slice(8, 32), (50, 50), halo=6, stride=2)
    arrays = {name: cube[name].to_numpy()[:, window.y.read, window.x.read] for name in OPTICAL}
    static = encode_block(model, {}, window, BlockOptions())
    found, quality = predict_block(model, arrays, static, window, BlockOptions(), 2)
    np.testing.assert_allclose(found, whole[:, 16:40, 8:32], atol=2e-6)
    assert quality.shape == found.shape


def test_user_built_cubes_are_held_to_names_and_units() -> None:
    model = load_model("band-ratio")
    with pytest.raises(ModelError, match="needs swir16"):
        predict(cube_of((1, 8, 8), ("blue", "red")), model)
    with pytest.raises(CubeError, match="no dimension time"):
        predict(cube_of((1, 8, 8), ("blue", "red", "swir16")).isel(time=0), model)
    cube = cube_of((1, 8, 8), ("blue", "red", "swir16"))
    cube["red"].attrs["units"] = "percent"
    with pytest.raises(CubeError, match="red is in 'percent': convert it to '1'"):
        predict(cube, model)


def test_a_mismatch_with_the_contract_is_told() -> None:
    cube = cube_of((1, 8, 8), ("blue", "red", "swir16"))
    with pytest.warns(UserWarning, match="meant for toa reflectance and the cube holds surface"):
        predict(cube.assign_attrs(reflectance="surface"), load_model("band-ratio"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        predict(cube.assign_attrs(reflectance="toa"), load_model("band-ratio"))
    wide = cube.assign_coords(x=cube["x"] * 100)
    with pytest.warns(UserWarning, match="the cube has 1000 m"):
        predict(wide, load_model("band-ratio"))


def test_cuda_is_used_where_it_is_found_and_refused_where_not() -> None:
    if torch.cuda.is_available():
        assert choose_device(None) == "cuda"
        return
    assert choose_device(None) == "cpu"
    with pytest.raises(ModelError, match="there is no CUDA here"):
        choose_device("cuda")


def test_a_block_that_the_device_cannot_even_encode_is_refused_by_name() -> None:
    class Greedy(_Strided):
        def encode_static(self, static: Mapping[str, Masked]) -> Any:
            raise torch.OutOfMemoryError("CUDA out of memory")

    model = Model.from_module(_strided_model().contract, Greedy())
    with pytest.raises(ModelError, match="does not hold one date of a block: use smaller blocks"):
        predict(cube_of((1, 8, 8), OPTICAL), model).compute(scheduler="synchronous")
