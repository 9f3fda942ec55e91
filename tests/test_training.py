"""Samples of simulated scenes, their scores, and what is shipped."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from glaciercube.errors import ModelError
from glaciercube.models import load_model
from glaciercube.models.fusion_unet import fusion_contract
from glaciercube.simulate.scene import SceneOptions, draw_scene
from glaciercube.training.evaluate import evaluate, fit_scaling, scores
from glaciercube.training.samples import SUBSETS, Sample, draw_pool, sample_from_scene

CONTRACT = fusion_contract(widths=(8, 8))
UNSEEN = range(9_000_000, 9_000_008)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny convolutions lose more to threads that wait for each other than they gain."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return [sample_from_scene(draw_scene(seed, SceneOptions(size=96)), CONTRACT, seed) for seed in UNSEEN]


def test_sample_has_the_contract_inputs_and_trusts_clouds_less(samples: list[Sample]) -> None:
    for sample in samples:
        assert {name: values.shape[0] for name, values in sample.inputs.items()} == {
            "optical": 6,
            "illumination": 1,
            "radar": 2,
            "terrain": 4,
        }
        assert np.nanmax(sample.inputs["radar"]) < 20
    scene = draw_scene(3, SceneOptions(size=64, cloud_cover=0.4))
    weight = sample_from_scene(scene, CONTRACT, 3).weight
    assert (weight[scene["cloud"].to_numpy()] < 1).all()
    assert (weight[~scene["cloud"].to_numpy()] == 1).all()


def test_scores_of_known_pixels() -> None:
    probability = np.array([[0.9, 0.9, 0.2, 0.2, np.nan]], dtype=np.float32)
    truth = np.array([[True, False, True, False, True]])
    found = scores([(probability, truth)])
    assert found.pixels == 4
    assert found.iou == pytest.approx(1 / 3)
    assert found.f1 == pytest.approx(0.5)
    assert found.ece == pytest.approx(0.5 * 0.4 + 0.5 * 0.3)
    assert found.bias == pytest.approx(2.2 / 2 - 1)
    with pytest.raises(ModelError, match="no pixel"):
        scores([(probability[:, 4:], truth[:, 4:])])


def test_scaling_is_recovered() -> None:
    rng = np.random.default_rng(2)
    logit = rng.normal(0, 2, (200, 200))
    truth = rng.random((200, 200)) < 1 / (1 + np.exp(-logit))
    overconfident = (1 / (1 + np.exp(-(2.5 * logit + 1.0)))).astype(np.float32)
    temperature, shift = fit_scaling([overconfident], [truth], [np.ones_like(overconfident)])
    assert temperature == pytest.approx(2.5, rel=0.05)
    assert shift == pytest.approx(-0.4, abs=0.05)


def test_pool_is_read_again_from_disk(tmp_path: Path) -> None:
    options = SceneOptions(size=32)
    first = draw_pool([1, 2], CONTRACT, options=options, folder=tmp_path, workers=1)
    stored = sorted(tmp_path.rglob("*.npz"))
    times = [path.stat().st_mtime_ns for path in stored]
    again = draw_pool([2, 1], CONTRACT, options=options, folder=tmp_path, workers=1)
    assert [path.stat().st_mtime_ns for path in stored] == times
    np.testing.assert_array_equal(first[0].inputs["optical"], again[1].inputs["optical"])
    fresh = sample_from_scene(draw_scene(1, options), CONTRACT, 1)
    np.testing.assert_allclose(first[0].inputs["radar"], fresh.inputs["radar"], atol=0.02)
    draw_pool([1], CONTRACT, options=SceneOptions(size=40), folder=tmp_path, workers=1)
    assert len(sorted(tmp_path.rglob("*.npz"))) == 3


def test_shipped_weights_know_scenes_that_they_never_saw(samples: list[Sample]) -> None:
    table = evaluate(load_model("fusion-unet"), samples, SUBSETS)
    bands = fusion_contract().modality("optical").variables
    index = [bands.index(name) for name in ("blue", "red", "swir16")]
    cut = [dataclasses.replace(s, inputs={"optical": s.inputs["optical"][index]}) for s in samples]
    rule = evaluate(load_model("band-ratio"), cut, {"S2": ("optical",)})["S2"]
    assert table["S2"].iou > max(rule.iou, 0.7)
    assert table["S2+S1+DEM"].iou >= table["S2"].iou - 0.03
    assert table["S2+S1+DEM"].ece < 0.1
