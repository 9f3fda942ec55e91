"""Models are asked in the terms of a chip's labels, whatever their classes, sensors and dates."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from small_models import small_model

from glaciercube.errors import ConfigError, GlaciercubeError, ModelError
from glaciercube.evaluation.predict import (
    PredictOptions,
    cases_of,
    groups_of,
    ice_labels,
    predict_chip,
    predict_classes,
)
from glaciercube.evaluation.sensors import sensor_subsets
from glaciercube.models import load_model
from glaciercube.models.chips import UNKNOWN, Chip
from glaciercube.models.classes import GROUND, PRESENCE

OPTICAL = ("blue", "green", "red", "nir", "swir16", "swir22")
VINCIGUERRA = {"other": ("other", "debris_covered_ice", "water"), "glacier": ("clean_ice", "seasonal_snow")}


def make_chip(dates: int = 3, size: int = 32, **other: Any) -> Chip:
    rng = np.random.default_rng(5)
    shape = (dates, size, size)
    variables = {name: rng.uniform(0.05, 0.9, shape) for name in OPTICAL}
    variables |= {name: rng.uniform(-20, -5, shape) for name in ("vv_db", "vh_db")}
    variables |= {"hillshade": rng.uniform(0, 1, shape), "slope": rng.uniform(0, 40, shape[1:])}
    variables |= {name: rng.uniform(-1, 1, shape[1:]) for name in ("aspect_sin", "aspect_cos")}
    variables["curvature"] = rng.uniform(-0.01, 0.01, shape[1:])
    chip = Chip(
        variables=variables,
        label=rng.integers(0, 5, shape).astype(np.uint8),
        labels={name: (name,) for name in GROUND},
        weight=np.ones(shape, np.float32),
        time=np.array(["2021-08-01", "2021-08-13", "2021-09-01"], "datetime64[s]")[:dates],
        resolution=20.0,
        name="chip",
    )
    return dataclasses.replace(chip, **other)


def test_band_ratio_is_asked_for_ice_and_gives_its_rule() -> None:
    chip, model = make_chip(), load_model("band-ratio")
    p = predict_chip(model, chip, classes=("clean_ice", "debris_covered_ice"))
    v = chip.variables
    np.testing.assert_array_equal(p > 0.5, (v["red"] / v["swir16"] > 2.8) & (v["blue"] > 0.15))
    assert p.shape == chip.label.shape
    assert p.dtype == np.float32
    # Ice and snow are glacier to a model of two classes, and what is neither is the rest.
    np.testing.assert_array_equal(p, predict_chip(model, chip, classes=("clean_ice", "seasonal_snow")))
    np.testing.assert_allclose(1 - p, predict_chip(model, chip, classes=VINCIGUERRA["other"]), atol=1e-6)
    np.testing.assert_array_equal(p, predict_chip(model, chip, classes=("debris_covered_ice",)))


def test_five_classes_are_summed_as_the_labels_say() -> None:
    chip, model = make_chip(), small_model("fusion-unet", classes=GROUND)
    every = predict_classes(model, chip)
    assert every.shape == (3, 5, 32, 32)
    np.testing.assert_allclose(every.sum(axis=1), 1, atol=1e-5)
    found = predict_chip(model, chip, classes=("clean_ice", "seasonal_snow"))
    np.testing.assert_allclose(found, every[:, 1] + every[:, 3], atol=1e-6)
    with pytest.raises(ModelError, match="stands for unknown"):
        predict_chip(model, chip, classes=("unknown",))


def test_sensors_that_are_kept_from_a_model_do_not_matter() -> None:
    chip, model = make_chip(), small_model("fusion-unet")
    blind = dataclasses.replace(chip, variables={k: v for k, v in chip.variables.items() if k not in OPTICAL})
    ice = ("glacier",)
    without = predict_chip(model, chip, classes=ice, without=("optical",))
    np.testing.assert_array_equal(without, predict_chip(model, blind, classes=ice))
    assert not np.allclose(without, predict_chip(model, chip, classes=ice))
    with pytest.raises(ModelError, match="no modality 'thermal'"):
        predict_chip(model, chip, classes=ice, without=("thermal",))


def test_static_inputs_alone_say_the_same_of_all_dates() -> None:
    chip, model = make_chip(), small_model("fusion-unet")
    dynamic = [m.name for m in model.contract.modalities if not m.static]
    found = predict_chip(model, chip, classes=("glacier",), without=dynamic)
    assert found.shape == chip.label.shape
    np.testing.assert_array_equal(found[0], found[2])


def test_dates_are_chosen_and_can_stand_alone() -> None:
    chip, model = make_chip(), small_model("fusion-unet-time")
    every = predict_classes(model, chip)
    np.testing.assert_allclose(predict_classes(model, chip, dates=[1]), every[1:2], atol=1e-5)
    alone = predict_classes(model, chip, alone=True)
    first = {k: v[1:2] if v.ndim == 3 else v for k, v in chip.variables.items()}
    single = make_chip(
        1, variables=first, label=chip.label[1:2], weight=chip.weight[1:2], time=chip.time[1:2], labels=chip.labels
    )
    np.testing.assert_allclose(alone[1:2], predict_classes(model, single), atol=1e-5)
    assert not np.allclose(alone[1], every[1], atol=1e-3)


def test_cases_hold_what_counts() -> None:
    label = np.zeros((1, 32, 32), np.uint8)
    label[:, :8], label[:, 8:10], label[:, 10:12] = 1, 2, UNKNOWN
    weight = np.ones_like(label, np.float32)
    weight[:, :, 30:], weight[:, :, 28:30] = 0, 0.2
    chip, model = make_chip(1, label=label, weight=weight), load_model("band-ratio")
    counts = {}
    for where in ("clear", "hidden", "all"):
        (case,) = cases_of(model, [chip], PredictOptions(where=where))
        counts[where] = int(case.counted.sum())
    assert counts == {"clear": 30 * 28, "hidden": 30 * 2, "all": 30 * 30}
    assert case.truth.sum() == 10 * 32
    assert case.debris is not None
    assert case.debris.sum() == 2 * 32
    assert case.classes is not None
    # A binary model knows ice from the rest and no more.
    assert case.classes.names == ("other+seasonal_snow+water", "clean_ice+debris_covered_ice")
    said = case.probability[case.seen] > 0.5
    np.testing.assert_array_equal(case.classes.counts.sum(axis=0), [(~said).sum(), said.sum()])
    np.testing.assert_array_equal(case.classes.counts.sum(axis=1), [20 * 30, 10 * 30])


def test_groups_are_what_a_model_can_tell_apart() -> None:
    identity = {name: (name,) for name in GROUND}
    names, of_label, of_class = groups_of(identity, GROUND) or ((), [], [])
    assert names == GROUND
    np.testing.assert_array_equal(of_label, range(5))
    np.testing.assert_array_equal(of_class, range(5))
    names, of_label, of_class = groups_of(identity, PRESENCE[::-1]) or ((), [], [])
    assert names == ("other+seasonal_snow+water", "clean_ice+debris_covered_ice")
    np.testing.assert_array_equal(of_label, [0, 1, 1, 0, 0])
    np.testing.assert_array_equal(of_class, [1, 0])
    names, _, of_class = groups_of(VINCIGUERRA, GROUND) or ((), [], [])
    assert names == ("other", "glacier")
    np.testing.assert_array_equal(of_class, [0, 1, 0, 1, 0])
    # To a binary model, clean ice is both debris-covered ice and what is not.
    debris = {"rest": ("other", "clean_ice", "seasonal_snow", "water"), "debris": ("debris_covered_ice",)}
    assert groups_of(debris, PRESENCE) is None


def test_what_is_to_be_found_is_named_or_known() -> None:
    chip = make_chip()
    assert ice_labels(chip.labels) == ("clean_ice", "debris_covered_ice")
    assert ice_labels(chip.labels, ("water",)) == ("water",)
    for positive in ((), ("shadow",)):
        with pytest.raises(ModelError, match="say which of its labels"):
            ice_labels(("rock",), positive)
    with pytest.raises(GlaciercubeError, match="'sunny'") as caught:
        PredictOptions(where="sunny")  # type: ignore[arg-type]
    assert isinstance(caught.value, ConfigError)


def test_subsets_of_sensors_leave_out_one_after_the_other() -> None:
    chip = make_chip()
    found = sensor_subsets(small_model("fusion-unet"), chip)
    assert found == {
        "all": (),
        "without optical": ("optical",),
        "without illumination": ("illumination",),
        "without radar": ("radar",),
        "without terrain": ("terrain",),
        "optical alone": ("illumination", "radar", "terrain"),
        "radar alone": ("optical", "illumination", "terrain"),
        "terrain alone": ("optical", "illumination", "radar"),
    }
    assert sensor_subsets(load_model("band-ratio"), chip) == {"all": ()}
