"""fusion-unet takes any subset of its sensors, sees no further than it says, and encodes the terrain once."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from glaciercube.errors import ModelError
from glaciercube.models import load_model
from glaciercube.models.architectures.contracts import architecture_contract
from glaciercube.models.base import GlacierModule, Masked, Model
from glaciercube.models.builtin import SHIPPED
from glaciercube.models.fusion_unet import FusionUNet, fusion_contract, receptive_field
from glaciercube.models.registry import build_module

SHAPE = (64, 72)


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model("fusion-unet")


@pytest.fixture
def block() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Two dates of every dynamic modality, and the terrain."""
    rng = np.random.default_rng(5)

    def smooth(channels: int, low: float, high: float) -> Tensor:
        coarse = torch.from_numpy(rng.uniform(low, high, (2, channels, 9, 10)).astype(np.float32))
        return nn.functional.interpolate(coarse, size=SHAPE, mode="bilinear", align_corners=True)

    dynamic = {"optical": smooth(6, 0.05, 0.7), "illumination": smooth(1, 0, 1), "radar": smooth(2, -22, -4)}
    return dynamic, {"terrain": torch.cat([smooth(1, 0, 40), smooth(2, -0.7, 0.7), smooth(1, -0.005, 0.005)], 1)[0]}


def test_any_subset_is_accepted(model: Model, block: tuple[dict[str, Tensor], dict[str, Tensor]]) -> None:
    dynamic, static = block
    seen = set()
    for count in (1, 2, 3):
        for names in itertools.combinations(("optical", "radar", "terrain"), count):
            given = {name: values for name, values in dynamic.items() if name in names}
            terrain = static if "terrain" in names else {}
            probability = model.predict(given, terrain)
            assert probability.shape == (2 if given else 1, *SHAPE)
            assert ((probability >= 0) & (probability <= 1)).all()
            seen.add(round(float(probability.mean()), 5))
    assert len(seen) == 7


def test_absent_and_wholly_missing_are_the_same(
    model: Model, block: tuple[dict[str, Tensor], dict[str, Tensor]]
) -> None:
    dynamic, static = block
    nothing = {name: torch.full_like(values, torch.nan) for name, values in dynamic.items() if name != "optical"}
    alone = model.predict({"optical": dynamic["optical"]}, {})
    beside = model.predict({"optical": dynamic["optical"], **nothing}, {"terrain": static["terrain"] * torch.nan})
    torch.testing.assert_close(beside, alone, rtol=0, atol=1e-6)


def test_a_pixel_is_defined_where_a_sensor_saw_it(
    model: Model, block: tuple[dict[str, Tensor], dict[str, Tensor]]
) -> None:
    dynamic, static = block
    dynamic["optical"][0, 3, :10] = torch.nan  # one band of the first date
    dynamic["radar"][0, :, :, :5] = torch.nan
    defined = model.predict(dynamic, static).isfinite()
    expected = torch.ones(2, *SHAPE, dtype=torch.bool)
    expected[0, :10, :5] = False
    assert torch.equal(defined, expected)
    # The hillshade and the terrain are finite everywhere, and must not make up for a missing image.
    unseen = {"optical": dynamic["optical"], "illumination": dynamic["illumination"]}
    expected[0, :10] = False
    assert torch.equal(model.predict(unseen, static).isfinite(), expected)


class _Counting(FusionUNet):
    calls = 0

    def encode_static(self, static):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        type(self).calls += 1
        for entry in static.values():
            assert entry.values.shape[0] == 1
        return super().encode_static(static)


def test_terrain_is_encoded_once_for_all_dates(block: tuple[dict[str, Tensor], dict[str, Tensor]]) -> None:
    dynamic, static = block
    contract = fusion_contract(widths=(8, 8, 8))
    torch.manual_seed(1)
    model = Model.from_module(contract, _Counting(contract))
    together = model.predict(dynamic, static)
    assert _Counting.calls == 1
    features = model.encode_static(static)
    parts = [model.predict({k: v[t : t + 1] for k, v in dynamic.items()}, features) for t in range(2)]
    assert _Counting.calls == 2
    torch.testing.assert_close(torch.cat(parts), together, rtol=0, atol=1e-5)


@pytest.mark.parametrize("origin", [(0, 0), (64, 64), (128, 80)])
def test_a_block_with_its_halo_gives_the_same_pixels(model: Model, origin: tuple[int, int]) -> None:
    rng = np.random.default_rng(11)
    halo, stride, size = model.contract.halo, model.contract.stride, 32
    halo += -halo % stride
    optical = torch.from_numpy(rng.uniform(0.02, 0.8, (1, 6, 232, 240)).astype(np.float32))
    terrain = torch.from_numpy(rng.normal(0, 5, (4, 232, 240)).astype(np.float32))
    whole = model.predict({"optical": optical}, {"terrain": terrain})
    top, left = (max(0, o - halo) for o in origin)
    rows, columns = slice(top, origin[0] + size + halo), slice(left, origin[1] + size + halo)
    part = model.predict({"optical": optical[..., rows, columns]}, {"terrain": terrain[..., rows, columns]})
    inner = part[:, origin[0] - top :, origin[1] - left :][:, :size, :size]
    expected = whole[:, origin[0] : origin[0] + size, origin[1] : origin[1] + size]
    torch.testing.assert_close(inner, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("branch", ["radar", "terrain"])
@pytest.mark.parametrize("levels", [2, 4])
def test_receptive_field_is_what_gradients_reach(levels: int, branch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    contract = fusion_contract(widths=(8,) * levels)
    module = build_module(contract).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.abs_()  # positive weights: no path is closed by a ReLU or cancelled
    # A maximum passes the gradient to one of four pixels; a mean has the same reach and shows all of it.
    monkeypatch.setattr(nn.functional, "max_pool2d", nn.functional.avg_pool2d)
    stated = receptive_field(levels - 1)
    reached = max(_reach(module, branch, place, stated) for place in range(2 ** (levels - 1)))
    assert reached == stated == contract.receptive_field


def _reach(module: GlacierModule, branch: str, place: int, stated: int) -> int:
    size = 2 * stated + 64
    size -= size % 8
    middle = size // 2 - (size // 2) % 8 + place
    channels = {"radar": 2, "terrain": 4}[branch]
    values = torch.ones(1, channels, 16, size, dtype=torch.float64, requires_grad=True)
    module.double()
    assert isinstance(module, FusionUNet)
    from glaciercube.models.base import Masked

    masked = {branch: Masked(values, torch.ones(1, 1, 16, size, dtype=torch.bool))}
    dynamic, static = (masked, {}) if branch == "radar" else ({}, masked)
    module.logits(dynamic, module.encode_static(static))[0, :, 8, middle].sum().backward()  # type: ignore[no-untyped-call]
    assert values.grad is not None
    columns = values.grad.abs().sum(dim=(0, 1, 2)).nonzero().ravel()
    return int(max(middle - columns.min(), columns.max() - middle))


def test_nothing_at_all_is_refused(model: Model) -> None:
    with pytest.raises(ModelError, match="no input at all"):
        model.predict({}, {})
    with pytest.raises(ModelError, match="carries evidence"):
        model.predict({"illumination": torch.zeros(1, 1, 8, 8)}, {})


def test_shipped_weights_are_small(model: Model) -> None:
    folder: Path = SHIPPED["fusion-unet"]
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 8_000_000
    assert sum(p.numel() for p in model.module.parameters()) < 600_000
    assert model.hash in (folder / "README.md").read_text(encoding="utf-8")


def test_the_band_ratios_logit_may_be_left_out_and_counts_in_the_hash_only_then() -> None:
    usual, without = (architecture_contract("fusion-unet", residual=on) for on in (True, False))
    assert usual.fingerprint == architecture_contract("fusion-unet").fingerprint
    assert usual.fingerprint != without.fingerprint
    bands = torch.rand(1, 6, 16, 16)
    found = []
    for contract in (usual, without):
        torch.manual_seed(0)
        module = build_module(contract).eval()
        assert isinstance(module, FusionUNet)
        given = {"optical": Masked(bands, torch.ones(1, 1, 16, 16, dtype=torch.bool))}
        found.append((module, module.logits(given, None), module.encode(given, None).ratio))
    (module, on, ratio), (plain, off, _) = found
    assert module.ratio_weight is not None
    assert float(ratio.abs().max()) > 0.1
    torch.testing.assert_close(on, off + module.ratio_weight * ratio[:, 0])
    assert plain.ratio_weight is None
    assert set(module.state_dict()) - set(plain.state_dict()) == {"ratio_weight"}
    with pytest.raises(ModelError, match="residul"):
        architecture_contract("fusion-unet", residul=False)
