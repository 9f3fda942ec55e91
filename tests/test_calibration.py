"""The shipped intervals belong to the shipped models, and hold on places that they were not measured on."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest
from scipy.stats import binomtest

from glaciercube.change import find_calibration
from glaciercube.models import load_model
from glaciercube.training.calibrate_area import FIRST_SEED, place_scores

ALL = ("illumination", "optical", "radar", "terrain")


@pytest.mark.parametrize("every", ["observation", "year"])
@pytest.mark.parametrize(
    ("name", "modalities"),
    [
        ("fusion-unet", ALL),
        ("fusion-unet", ("optical", "radar", "terrain")),
        ("fusion-unet", ("illumination", "optical", "terrain")),
        ("fusion-unet", ("optical",)),
        ("fusion-unet", ("radar", "terrain")),
        ("band-ratio", ("optical",)),
        ("ndsi", ("optical",)),
    ],
)
def test_shipped_models_have_intervals(name: str, modalities: tuple[str, ...], every: str) -> None:
    found = find_calibration(load_model(name).hash, modalities, every)
    assert found is not None, "the weights have changed: make calibrate"
    assert len(found.scores) > 150
    for share in (0.2, 0.7, 0.95):
        low, high = found.quantiles(0.9, share)
        assert low <= high


@pytest.mark.skipif(not os.environ.get("GLACIERCUBE_FULL"), reason="takes minutes; make test-all runs it")
def test_intervals_hold_on_fresh_places() -> None:
    fresh = range(FIRST_SEED + 50_000, FIRST_SEED + 50_100)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        scores = [score for place in pool.map(place_scores, fresh) for score in place]
    for name, modalities in (("fusion-unet", ALL), ("band-ratio", ("optical",))):
        for every in ("observation", "year"):
            calibration = find_calibration(load_model(name).hash, modalities, every)
            assert calibration is not None
            mine = [s for s in scores if (s.model, s.modalities, s.every) == (name, modalities, every)]
            inside = 0
            for score in mine:
                low, high = calibration.quantiles(0.9, score.share)
                inside += low <= score.value <= high
            # Coverage may be above nominal; it must not be significantly below.
            assert binomtest(inside, len(mine), 0.9, alternative="less").pvalue > 0.01, (name, every, inside, len(mine))
