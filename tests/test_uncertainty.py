"""Probabilities are made to mean what they say, and their spread is what it is said to be."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from small_models import small_model

from glaciercube.errors import GlaciercubeError, ModelError
from glaciercube.models import load_model
from glaciercube.models.chips import Chip
from glaciercube.models.classes import GROUND, Output
from glaciercube.training.calibrate import calibrate, draw_pixels
from glaciercube.training.scaling import Pixels, Scaling, fit_scaling, rescaled

ICE = Output(classes=("clean_ice", "debris_covered_ice"))


def bands(rng: np.random.Generator, dates: int, size: int) -> dict[str, npt.NDArray[Any]]:
    names = ("blue", "green", "red", "nir", "swir16", "swir22")
    return {name: rng.uniform(0.05, 0.9, (dates, size, size)).astype(np.float32) for name in names}


def chip(seed: int, *, size: int = 32, dates: int = 1) -> Chip:
    """Noise, with an ice label in the upper half."""
    rng = np.random.default_rng(seed)
    label = np.zeros((dates, size, size), np.uint8)
    label[:, : size // 2] = 1
    label[:, :, -1] = 255
    return Chip(
        variables=bands(rng, dates, size),
        label=label,
        labels={"other": ("other", "water", "seasonal_snow"), "glacier": ("clean_ice", "debris_covered_ice")},
        weight=np.ones(label.shape, np.float32),
        time=np.datetime64("2020-08-01", "s") + np.arange(dates) * np.timedelta64(8, "D"),
        resolution=10.0,
        name=f"chip {seed}",
    )


def spoiled(rng: np.random.Generator, scaling: Scaling, *, count: int = 40_000) -> Pixels:
    """Pixels whose labels follow a softmax, and the logarithm of the probabilities that a spoiled model gives them."""
    logit = rng.normal(0, 2, (count, 5))
    raised = np.isin(GROUND, ICE.classes)
    true = np.exp(logit) / np.exp(logit).sum(axis=1, keepdims=True)
    drawn = (true.cumsum(axis=1) < rng.random((count, 1))).sum(axis=1)
    # log p of the model m for which m.log / temperature + shift * raised is the truth.
    log = (logit - scaling.shift * raised) * scaling.temperature
    log -= np.log(np.exp(log).sum(axis=1, keepdims=True))
    # Half of the labels are coarse: they say ice or not, and no more.
    may = np.where((rng.random(count) < 0.5)[:, None], raised == raised[drawn][:, None], np.eye(5, dtype=bool)[drawn])
    ice = np.broadcast_to(raised, may.shape)
    place = rng.integers(0, 8, count)
    return Pixels(log, may, ice, raised[drawn], rng.random(count) < 0.3, np.ones(count), place, raised)


@pytest.mark.parametrize("scaling", [Scaling(2.0, 0.5), Scaling(0.6, -1.0)])
def test_temperature_and_shift_are_found_again(scaling: Scaling) -> None:
    pixels = spoiled(np.random.default_rng(1), scaling)
    found = fit_scaling(pixels)
    assert found.temperature == pytest.approx(scaling.temperature, rel=0.05)
    assert found.shift == pytest.approx(scaling.shift, abs=0.06)
    probability = pixels.probability(found)
    for low in (0.1, 0.5, 0.8):
        here = (probability >= low) & (probability < low + 0.1)
        assert pixels.truth[here].mean() == pytest.approx(probability[here].mean(), abs=0.04)


def test_places_weigh_the_same_whatever_their_size() -> None:
    pixels = spoiled(np.random.default_rng(2), Scaling(), count=3000)
    shares = np.where(pixels.place == 0, 1000.0, 1.0)
    weight = Pixels(**{**vars(pixels), "share": shares}).weights(0.5)
    np.testing.assert_allclose(np.bincount(pixels.place, weight), 1 / 8)
    np.testing.assert_allclose(weight[pixels.near].sum(), 0.5)
    # Where no pixel is near an outline, those beyond have the place's whole weight.
    far = Pixels(**{**vars(pixels), "near": pixels.near & (pixels.place > 0)}).weights(0.5)
    np.testing.assert_allclose(np.bincount(pixels.place, far), 1 / 8)


@pytest.mark.parametrize("five", [False, True])
def test_calibration_scales_what_the_model_says_and_nothing_else(five: bool) -> None:
    more: dict[str, Any] = {"classes": GROUND, "outputs": (ICE,)} if five else {
        "classes": ("other", "glacier"), "outputs": (Output(),)
    }  # fmt: skip
    model = rescaled(small_model("fusion-unet", **more), Scaling(1.3, 0.2))
    once = rescaled(model, Scaling(2.0, -0.4))
    assert once.hash != model.hash
    one = chip(3)
    before, after = (draw_pixels(m, [one], pixels=4000) for m in (model, once))
    np.testing.assert_array_equal(after.truth, before.truth)
    expected = before.probability(Scaling(2.0, -0.4))
    np.testing.assert_allclose(after.probability(Scaling()), expected, atol=2e-4)


def test_calibrating_brings_probabilities_nearer_to_the_labels() -> None:
    model = rescaled(small_model("fusion-unet"), Scaling(0.05, 0.0))  # far too sure of itself
    better, said = calibrate(model, [chip(seed) for seed in range(6)])
    assert said.places == 6
    assert said.entropy_after < said.entropy / 2
    assert said.near_ece_after < said.near_ece
    assert better.contract.parameters["temperature"] > 2 * model.contract.parameters["temperature"]  # type: ignore[operator]
    assert "6 places" in str(said)


def test_what_cannot_be_calibrated_is_refused() -> None:
    with pytest.raises(ModelError, match="no temperature"):
        rescaled(load_model("band-ratio"), Scaling(2.0))
    with pytest.raises(GlaciercubeError, match="1 places to calibrate on"):
        calibrate(small_model("fusion-unet"), [chip(0)])
