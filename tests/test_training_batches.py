"""Crops are turned, lit, stripped and weighed as stated, and losses understand labels that are sets of classes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from made_chips import made_chip
from small_models import small_contract

from glaciercube.cube.terrain import terrain_variables
from glaciercube.models.chips import UNKNOWN, Chip
from glaciercube.models.classes import GROUND, PRESENCE, ZONES, membership
from glaciercube.models.reach import TimeContext
from glaciercube.training.augment import Light, Turn, draw_light, foreshortening, relight
from glaciercube.training.batches import draw_batch, make_batch, prepared
from glaciercube.training.cuts import draw_cut, still_cut
from glaciercube.training.losses import Truth, all_sets, edge_loss, label_log_probability, label_loss
from glaciercube.training.options import FitOptions, Jitter, Sensors

CONTRACT = small_contract("unet-resnet")
TIME = small_contract("fusion-unet-time", time_context=TimeContext(before=30.0, after=30.0, most=2))
BANDS = ("blue", "green", "red", "nir", "swir16", "swir22")


def still(**other: float) -> Jitter:
    none = dict.fromkeys(
        ("gain", "band_gain", "offset", "gamma", "noise", "decibel", "unflattened", "days", "rough"), 0.0
    )
    return Jitter(**{**none, **other})


def truth_of(label: list[int], weight: list[float], classes: int, rows: tuple[int, ...] = ()) -> Truth:
    member = all_sets(classes)
    asked = torch.zeros(1, len(member), dtype=torch.bool)
    asked[0, list(rows)] = True
    return Truth(torch.tensor([[label]]), torch.tensor([[weight]]), member, asked, rows)


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_turned_terrain_is_the_terrain_of_the_turned_surface(turns: int, mirror: bool) -> None:
    y, x = np.mgrid[0:24, 0:24].astype(float)
    surface = 40 * np.sin(x / 5) + 3 * y + 0.2 * x * y
    names = ("slope", "aspect_sin", "aspect_cos", "curvature")

    def terrain(z: np.ndarray) -> np.ndarray:
        made = terrain_variables(z, 10.0)
        return np.stack([made[name] for name in names])

    turn = Turn(turns, mirror)
    turned = np.ascontiguousarray(turn.moved(terrain(surface)))
    turn.redirect(turned, names)
    again = terrain(np.rot90(surface[:, ::-1] if mirror else surface, turns))
    np.testing.assert_allclose(turned[:, 1:-1, 1:-1], again[:, 1:-1, 1:-1], atol=1e-4)


def test_one_band_of_shortwave_infrared_is_shown_as_two() -> None:
    rng = np.random.default_rng(3)
    values = rng.uniform(0.1, 0.5, (len(BANDS), 8, 8)).astype(np.float32)
    shown = values.copy()
    light = replace(
        draw_light(BANDS, Jitter(gain=0, band_gain=0, offset=0, gamma=0, noise=0, one_swir=1), rng), noise=0
    )
    assert light.one_swir
    relight(shown, BANDS, light)
    near, far = BANDS.index("swir16"), BANDS.index("swir22")
    np.testing.assert_allclose(shown[far], shown[near], rtol=1e-6)
    np.testing.assert_allclose(shown[near], values[near], rtol=1e-6)
    assert not draw_light(BANDS, Jitter(), rng).one_swir


def test_light_changes_bands_and_keeps_what_is_missing() -> None:
    rng = np.random.default_rng(1)
    values = rng.uniform(0.05, 0.9, (6, 40, 40)).astype(np.float32)
    values[:, 2, 3] = np.nan
    lit = values.copy()
    relight(lit, BANDS, draw_light(BANDS, Jitter(), rng))
    assert np.isnan(lit[:, 2, 3]).all()
    ratio = np.nanmean(lit, axis=(1, 2)) / np.nanmean(values, axis=(1, 2))
    assert ((ratio > 0.5) & (ratio < 2)).all()
    assert ratio.std() > 0.01
    plain = Light(1.3, dict.fromkeys(BANDS, 0.9), dict.fromkeys(BANDS, 0.01), 0.0, 0, None, None)
    lit = values.copy()
    relight(lit, BANDS, plain)
    np.testing.assert_allclose(lit, 0.9 * 0.4 * (values / 0.4) ** 1.3 + 0.01, rtol=1e-5)
    noisy = values.copy()
    relight(noisy, BANDS, replace(plain, noise=0.01, start=2**20 - 5))
    assert np.nanstd(noisy - lit) == pytest.approx(0.01, rel=0.05)


def test_slopes_give_their_brightness_back_to_the_radar_alone() -> None:
    slopes = {"slope": np.zeros((8, 8)), "aspect_sin": np.zeros((8, 8)), "aspect_cos": np.zeros((8, 8))}
    slopes["slope"][:, 4:], slopes["aspect_cos"][:, 4:], slopes["slope"][0, 0] = 25.0, 1.0, np.nan
    for seed in range(4):
        light = draw_light(("vv_db",), still(unflattened=1.0), np.random.default_rng(seed))
        gain = foreshortening(slopes, light)
        assert (gain[:, :4] == 0).all()
        tilt = 1 - 10 ** (-gain[:, 4:] / 10)
        assert (np.abs(tilt) <= np.tan(np.radians(25)) / np.tan(np.radians(30)) + 1e-4).all()
        assert (tilt != 0).all()


def test_a_crop_holds_the_chip_turned_and_what_lies_beyond_is_missing() -> None:
    chip = made_chip(CONTRACT, 0, size=50, dates=2)
    options = FitOptions(jitter=still(), sensors=Sensors(whole=1.0))
    for seed in range(3):
        cut = draw_cut(chip, CONTRACT, options, np.random.default_rng(seed))
        batch = make_batch([cut], CONTRACT)
        assert batch.dynamic["optical"].shape[2:] == (64, 64)
        back = np.rot90(batch.dynamic["optical"][0, 2], -cut.turn.turns)
        back = back[:, ::-1] if cut.turn.mirror else back
        np.testing.assert_allclose(back[:50, :50], chip.variables["red"][cut.dates[0]], rtol=1e-6)
        assert np.isnan(back[50:]).all()
        inputs = prepared(batch, CONTRACT)
        assert int((inputs.truth.weight > 0).sum()) == 50 * 48  # two rows of the label are not known


def test_batches_show_subsets_and_weigh_only_what_is_seen() -> None:
    contract = small_contract("fusion-unet")
    chips = [made_chip(contract, number) for number in range(3)]
    options = FitOptions(batch=48, size=16)
    batch = draw_batch(chips, contract, options, 3)
    inputs = prepared(batch, contract)
    every = {**inputs.dynamic, **inputs.static}
    shown = {name: entry.valid.flatten(1).any(1) for name, entry in every.items()}
    assert all(0 < int(v.sum()) < 48 for v in shown.values())
    evidence = torch.stack([shown[m.name] for m in contract.modalities if m.evidence])
    assert evidence.any(dim=0).all()
    for name, values in draw_batch(chips, contract, options, 3, part=(1, 2)).dynamic.items():
        torch.testing.assert_close(values, batch.dynamic[name][1::2], equal_nan=True, rtol=0, atol=0)
    unseen = torch.stack([every[m.name].valid[:, 0] for m in contract.modalities if m.evidence]).any(dim=0)
    assert (inputs.truth.weight[~unseen] == 0).all()


def test_series_have_one_to_all_dates_and_only_their_own_neighbours() -> None:
    chips = [made_chip(TIME, number, dates=6) for number in range(3)]
    options = FitOptions(batch=24, size=16, dates=4, jitter=still(days=2.0))
    counts = [len(draw_cut(chips[0], TIME, options, np.random.default_rng(seed)).dates) for seed in range(60)]
    assert {1, 2, 3, 4} == set(counts)
    batch = draw_batch(chips, TIME, options, 0)
    assert batch.neighbours is not None
    assert batch.owner is not None
    dates = len(batch.dynamic["optical"])
    assert len(batch.owner) == dates  # every date is predicted
    which, present, days = batch.neighbours
    same = batch.owner[which] == batch.owner[:, None]
    assert bool((same | ~present).all())
    assert bool((which[:, TIME.time_context.earlier] == torch.arange(dates)).all())  # type: ignore[union-attr]
    assert set(days[present].round().tolist()) - {-20.0, -10.0, 0.0, 10.0, 20.0}  # jitter
    one = draw_batch(chips, TIME, replace(options, targets=1), 0)
    assert len(one.truth.label) == 24
    looked = still_cut(chips[0], TIME, options, 0)
    assert looked.dates == (0, 1, 2)


def test_labels_mean_the_classes_that_a_model_has() -> None:
    ground = {name: (name,) for name in GROUND}
    assert membership(ground, GROUND).tolist() == np.eye(5).tolist()
    assert membership(ground, PRESENCE)[:, 1].tolist() == [0, 1, 1, 0, 0]
    assert membership(ground, PRESENCE).sum(axis=1).tolist() == [1] * 5
    snowy = {"glacier": ("clean_ice", "seasonal_snow"), "other": ("other", "debris_covered_ice", "water")}
    assert membership(snowy, PRESENCE).tolist() == [[0, 1], [1, 0]]
    assert membership(snowy, GROUND).tolist() == [[0, 1, 0, 1, 0], [1, 0, 1, 0, 1]]
    debris = {"debris": ("debris_covered_ice",), "rest": ("other", "clean_ice", "seasonal_snow", "water")}
    assert membership(debris, PRESENCE).tolist() == [[0, 1], [1, 1]]
    zones = membership({name: (name,) for name in (*ZONES, "front", "unknown")}, ZONES)
    assert zones.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 1], [0, 0, 0]]
    assert membership({"g": ("glacier",)}, ("other", "rock_glacier")).tolist() == [[1, 0]]


def test_the_probability_of_a_label_is_the_sum_of_its_classes() -> None:
    logit = torch.randn(1, 5, 1, 3, generator=torch.Generator().manual_seed(0))
    probability = torch.softmax(logit, dim=1)[0, :, 0]
    label = torch.tensor([[[1 + 8, 2, 0]]])
    found = label_log_probability(logit, label, all_sets(5)).exp()[0, 0]
    wanted = torch.stack([probability[0, 0] + probability[3, 0], probability[1, 1], torch.tensor(1.0)])
    torch.testing.assert_close(found, wanted)
    binary = torch.tensor([[[0.3, -2.0, 5.0]]])
    found = label_log_probability(binary, torch.tensor([[[1, 2, 3]]]), all_sets(2)).exp()
    one, two = torch.sigmoid(binary[0, 0, :2])
    torch.testing.assert_close(found[0, 0], torch.stack([1 - one, two, torch.tensor(1.0)]))


def test_loss_is_cross_entropy_without_focus_and_leaves_out_what_says_nothing() -> None:
    logit, target = torch.randn(1, 1, 9), torch.tensor([0, 1, 1, 0, 1, 0, 0, 0, 1])
    truth = truth_of((target + 1).tolist(), [1.0] * 9, 2, (1, 2))
    plain = torch.nn.functional.binary_cross_entropy_with_logits(logit[0, 0], target.float())
    torch.testing.assert_close(label_loss(logit, truth, gamma=0.0, dice=0.0), plain)
    many = torch.randn(1, 3, 1, 4)
    found = label_loss(many, truth_of([1, 2, 4, 1], [1.0] * 4, 3, (1, 2, 4)), gamma=0.0, dice=0.0)
    wanted = torch.nn.functional.cross_entropy(many[0, :, 0].t(), torch.tensor([0, 1, 2, 0]))
    torch.testing.assert_close(found, wanted)
    sure = torch.tensor([[[9.0, -9.0, 9.0, 9.0, 9.0]]]).requires_grad_()
    good = label_loss(sure, truth_of([2, 1, 1, 3, 0], [1.0, 1.0, 0.0, 1.0, 0.0], 2, (1, 2)), gamma=0.5, dice=0.5)
    good.backward()  # type: ignore[no-untyped-call]
    assert float(good.detach()) < 0.01
    assert sure.grad is not None
    assert bool(torch.isfinite(sure.grad).all())
    assert sure.grad[0, 0, 2:].tolist() == [0, 0, 0]


def test_dice_speaks_for_labels_that_a_chip_could_have_had() -> None:
    logit = torch.zeros(1, 3, 1, 4)
    logit[0, 2] = 6.0
    blind = truth_of([1, 1, 2, 2], [1.0] * 4, 3, (1, 2))
    asked = truth_of([1, 1, 2, 2], [1.0] * 4, 3, (1, 2, 4))
    # A class that no pixel is, and that the model says everywhere, counts only where the labels know of it.
    assert float(label_loss(logit, asked, dice=1.0)) > float(label_loss(logit, blind, dice=1.0)) * 0.66
    right = torch.tensor([[[9.0, 9.0, -9.0, -9.0], [-9.0, -9.0, 9.0, 9.0], [-9.0] * 4]])[:, :, None]
    assert float(label_loss(right, asked, dice=1.0)) < 0.01


def test_edges_and_the_rest_weigh_the_same() -> None:
    label = torch.ones(1, 16, 16, dtype=torch.int64)
    label[:, :, 8:] = 2
    truth = Truth(label, torch.ones(1, 16, 16), all_sets(2), torch.ones(1, 4, dtype=torch.bool), (1, 2))
    edge = torch.full((1, 16, 16), -8.0)
    edge[:, :, 7:9] = 8.0
    assert float(edge_loss(edge, truth)) < 0.01
    assert float(edge_loss(torch.full((1, 16, 16), -8.0), truth)) == pytest.approx(4.0, rel=0.01)
    coarse = torch.full((1, 4, 4), -8.0)
    coarse[:, :, 1:3] = 8.0
    assert float(edge_loss(coarse, truth, 4)) < 0.01


def test_static_layers_with_dates_are_refused() -> None:
    chip = made_chip(CONTRACT, 0)
    variables = {**chip.variables, "slope": np.zeros(chip.label.shape, np.float32)}
    wrong = Chip(variables, chip.label, chip.labels, chip.weight, chip.time, 10.0, "wrong")
    with pytest.raises(Exception, match="dates in the static"):
        draw_batch([wrong], CONTRACT, FitOptions(batch=1, sensors=Sensors(whole=1.0)), 0)


def test_unknown_pixels_are_no_label() -> None:
    chip = made_chip(CONTRACT, 0)
    label = chip.label.copy()
    label[:] = UNKNOWN
    batch = draw_batch([replace(chip, label=label)], CONTRACT, FitOptions(batch=2), 0)
    assert (batch.truth.weight == 0).all()


@pytest.mark.parametrize("foreign", [0.0, 1.0])
def test_a_sample_may_show_the_ground_of_another_place(foreign: float) -> None:
    contract = small_contract("fusion-unet")
    chips = []
    for number in range(2):
        chip = made_chip(contract, number)
        flat = np.full(chip.label.shape[1:], 10.0 * (number + 1), np.float32)
        ground = dict.fromkeys(("slope", "aspect_sin", "aspect_cos", "curvature"), flat)
        dated = {name: np.full(chip.label.shape, 0.1 * (number + 1), np.float32) for name in BANDS}
        chips.append(replace(chip, variables={**ground, **dated}))
    options = FitOptions(batch=32, size=16, jitter=still(rough=0.0), sensors=Sensors(whole=1.0, foreign=foreign))
    batch = draw_batch(chips, contract, options, 0)
    own = batch.dynamic["optical"][:, 0, 0, 0] > 0.15
    shown = batch.static["terrain"][:, 0, 0, 0] > 15
    # Another may be drawn that is the same.
    assert bool((own != shown).any()) == bool(foreign)
