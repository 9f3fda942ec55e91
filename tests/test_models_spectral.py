"""The rules give 0.5 exactly where the published thresholds lie, and nothing where a band is missing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from glaciercube.errors import ModelError
from glaciercube.models import load_model


def _random(bands: int, seed: int) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.uniform(0.0, 0.6, (3, bands, 40, 50)).astype(np.float32))


@pytest.mark.parametrize(("threshold", "blue"), [(2.8, 0.15), (1.5, 0.05)])
def test_band_ratio_above_a_half_is_the_rule(threshold: float, blue: float) -> None:
    optical = _random(3, 1)
    optical[0, :, 0, 0] = torch.tensor([0.3, 0.4, 0.0])  # no SWIR at all: bright in the ratio
    optical[0, :, 0, 1] = torch.tensor([0.3, -0.01, 0.1])
    optical[0, 0, 0, 2] = blue  # on the threshold is not above it
    probability = load_model("band-ratio", threshold=threshold, blue=blue).predict({"optical": optical}, {}).numpy()
    b, r, s = (optical[:, i].numpy() for i in range(3))
    rule = (np.maximum(r, np.float32(1e-4)) / np.maximum(s, np.float32(1e-4)) > threshold) & (b > np.float32(blue))
    assert rule.any()
    np.testing.assert_array_equal(probability > 0.5, rule)
    assert np.isfinite(probability).all()


def test_band_ratio_holds_its_side_within_rounding() -> None:
    swir = torch.full((1, 1, 1, 2001), 0.1)
    red = (0.28 * (1 + torch.linspace(-1e-6, 1e-6, 2001))).view(1, 1, 1, -1)
    optical = torch.cat([torch.full_like(swir, 0.5), red, swir], dim=1)
    probability = load_model("band-ratio").predict({"optical": optical}, {})
    assert torch.equal(probability[0] > 0.5, (red / swir > 2.8)[0, 0])


def test_ndsi_with_and_without_near_infrared() -> None:
    bands = _random(3, 2)
    green, swir, nir = (bands[:, i].clamp(min=1e-4) for i in range(3))
    index = (green - swir) / (green + swir)
    plain = load_model("ndsi").predict({"optical": bands[:, :2].contiguous()}, {})
    assert torch.equal(plain > 0.5, index > 0.4)
    guarded = load_model("ndsi", nir=0.11)
    assert guarded.contract.variables == ("green", "swir16", "nir")
    assert torch.equal(guarded.predict({"optical": bands}, {}) > 0.5, (index > 0.4) & (nir > 0.11))


def test_a_missing_band_is_a_missing_pixel() -> None:
    optical = _random(3, 3)
    optical[1, 2, 5, 6] = torch.nan
    optical[2, 0, 7, 8] = torch.inf
    missing = load_model("band-ratio").predict({"optical": optical}, {}).isnan()
    assert missing.nonzero().tolist() == [[1, 5, 6], [2, 7, 8]]


def test_identity_returns_its_input() -> None:
    values = _random(1, 4)
    values[0, 0, 3, 4] = torch.nan
    got = load_model("identity", variable="nir").predict({"input": values}, {})
    assert torch.equal(got.nan_to_num(-1.0), values[:, 0].nan_to_num(-1.0))


def test_wrong_inputs_are_refused() -> None:
    model = load_model("band-ratio")
    with pytest.raises(ModelError, match="got no optical input"):
        model.predict({}, {})
    with pytest.raises(ModelError, match="stack blue, red, swir16"):
        model.predict({"optical": torch.zeros(1, 2, 4, 4)}, {})
    with pytest.raises(ModelError, match="no modality 'radar'"):
        model.predict({"optical": torch.zeros(1, 3, 4, 4), "radar": torch.zeros(1, 2, 4, 4)}, {})
