"""Samples are turned, lit, stripped, weighted and fitted as stated."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from glaciercube.cube.terrain import terrain_variables
from glaciercube.errors import ModelError
from glaciercube.models import load_model
from glaciercube.models.base import GlacierModule
from glaciercube.models.fusion_unet import FusionUNet, fusion_contract
from glaciercube.models.registry import build_module
from glaciercube.simulate.scene import SceneOptions, draw_scene
from glaciercube.training.augment import Jitter, dihedral, photometric
from glaciercube.training.evaluate import evaluate, fit_scaling, scores
from glaciercube.training.fit import FitOptions, draw_batch, fit
from glaciercube.training.losses import focal_dice
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


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_turned_terrain_is_the_terrain_of_the_turned_surface(turns: int, mirror: bool) -> None:
    y, x = np.mgrid[0:24, 0:24].astype(float)
    surface = 40 * np.sin(x / 5) + 3 * y + 0.2 * x * y
    names = CONTRACT.modality("terrain").variables

    def terrain(z: np.ndarray) -> np.ndarray:
        made = terrain_variables(z, 10.0)
        return np.stack([made[name] for name in names])

    plain = Sample({"terrain": terrain(surface)}, surface > 0, np.ones((24, 24), np.float32), 0)
    turned = dihedral(plain, CONTRACT, turns=turns, mirror=mirror).inputs["terrain"]
    again = terrain(np.rot90(surface[:, ::-1] if mirror else surface, turns))
    np.testing.assert_allclose(turned[:, 1:-1, 1:-1], again[:, 1:-1, 1:-1], atol=1e-4)


def test_photometric_keeps_missing_pixels_and_the_truth(samples: list[Sample]) -> None:
    sample = samples[0]
    sample.inputs["optical"][:, 2, 3] = np.nan
    lit = photometric(sample, CONTRACT, Jitter(), np.random.default_rng(1))
    assert np.isnan(lit.inputs["optical"][:, 2, 3]).all()
    np.testing.assert_array_equal(lit.label, sample.label)
    ratio = np.nanmean(lit.inputs["optical"], axis=(1, 2)) / np.nanmean(sample.inputs["optical"], axis=(1, 2))
    assert ((ratio > 0.5) & (ratio < 2)).all()
    assert ratio.std() > 0.01


def test_slopes_give_their_brightness_back_to_the_radar_alone(samples: list[Sample]) -> None:
    still = Jitter(gain=0, band_gain=0, offset=0, gamma=0, noise=0, decibel=0, unflattened=1)
    inputs = {name: np.zeros_like(values) for name, values in samples[0].inputs.items()}
    inputs["terrain"][0, :, 48:] = 25.0  # slope in degrees on the eastern half
    inputs["terrain"][2, :, 48:] = 1.0  # facing north
    for seed in range(4):
        lit = photometric(dataclasses.replace(samples[0], inputs=inputs), CONTRACT, still, np.random.default_rng(seed))
        assert (lit.inputs["radar"][:, :, :48] == 0).all()
        tilt = 1 - 10 ** (-lit.inputs["radar"][:, :, 48:] / 10)
        assert (np.abs(tilt) <= np.tan(np.radians(25)) / np.tan(np.radians(30)) + 1e-4).all()
        assert np.ptp(tilt) < 1e-5
        assert (tilt != 0).all()


def test_loss_leaves_out_what_has_no_weight() -> None:
    logit = torch.tensor([[[4.0, -4.0, 4.0]]])
    target = torch.tensor([[[1.0, 0.0, 0.0]]])
    good = focal_dice(logit, target, torch.tensor([[[1.0, 1.0, 0.0]]]))
    bad = focal_dice(logit, target, torch.ones(1, 1, 3))
    assert good < 0.05
    assert bad > 0.5


def test_cross_entropy_is_focal_without_focus() -> None:
    logit, target = torch.randn(2, 5, 5), (torch.rand(2, 5, 5) > 0.5).float()
    plain = torch.nn.functional.binary_cross_entropy_with_logits(logit, target)
    torch.testing.assert_close(focal_dice(logit, target, torch.ones(2, 5, 5), gamma=0.0, dice=0.0), plain)


def test_batch_shows_subsets_and_weighs_only_what_is_seen(samples: list[Sample]) -> None:
    batch = draw_batch(samples, CONTRACT, FitOptions(batch=64, size=32), np.random.default_rng(0))
    shown = {name: entry.valid.flatten(1).any(1) for name, entry in {**batch.dynamic, **batch.static}.items()}
    assert all(0 < int(v.sum()) < 64 for v in shown.values())
    assert (shown["optical"] | shown["radar"] | shown["terrain"]).all()
    unseen = ~(batch.dynamic["optical"].valid | batch.dynamic["radar"].valid | batch.static["terrain"].valid)[:, 0]
    assert (batch.weight[unseen] == 0).all()
    again = draw_batch(samples, CONTRACT, FitOptions(batch=64, size=32), np.random.default_rng(0))
    assert torch.equal(again.dynamic["optical"].values, batch.dynamic["optical"].values)


def test_a_fit_learns_and_goes_on_where_it_was_stopped(samples: list[Sample], tmp_path: Path) -> None:
    options = FitOptions(steps=40, batch=6, size=32, every=8, rate=5e-3, average=0.8)
    seen = draw_batch(samples, CONTRACT, FitOptions(batch=48, size=48), np.random.default_rng(99))

    def loss(module: GlacierModule) -> float:
        assert isinstance(module, FusionUNet)
        with torch.no_grad():
            logit = module.eval().logits(seen.dynamic, module.encode_static(seen.static))
        return float(focal_dice(logit, seen.label, seen.weight))

    def fitted(report: object = None, checkpoint: Path | None = None) -> GlacierModule:
        torch.manual_seed(0)
        return fit(build_module(CONTRACT), CONTRACT, samples, options, checkpoint=checkpoint, report=report)  # type: ignore[arg-type]

    torch.manual_seed(0)
    before = loss(build_module(CONTRACT))
    whole = fitted()
    assert loss(whole) < 0.9 * before

    class StoppedError(Exception):
        pass

    def stop(step: int, _: float) -> None:
        if step == 18:
            raise StoppedError

    with pytest.raises(StoppedError):
        fitted(report=stop, checkpoint=tmp_path / "fit.pt")
    resumed = fitted(checkpoint=tmp_path / "fit.pt")
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, msg=name)


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
