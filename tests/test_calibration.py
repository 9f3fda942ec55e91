"""Errors of area are measured right, and the shipped intervals belong to the shipped models and hold elsewhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from conftest import FULL
from scipy.stats import binomtest

from glaciercube.change import error_scale, find_calibration, write_calibrations
from glaciercube.models import load_model
from glaciercube.models.chips import Chip
from glaciercube.models.classes import GROUND
from glaciercube.training.area_errors import AreaError, Maps, area_errors, maps_of, modalities_of, without
from glaciercube.training.calibrate_area import FIRST_SEED, MAIN, Measured, calibrations, draw_chips, measure
from glaciercube.training.coverage import check

ALL = ("illumination", "optical", "radar", "relief", "terrain")
SIZE, PIXEL = 40, 20.0
BRIGHT = {"blue": 0.6, "green": 0.6, "red": 0.6, "nir": 0.5, "swir16": 0.05, "swir22": 0.05}
DARK = {"blue": 0.1, "green": 0.1, "red": 0.1, "nir": 0.2, "swir16": 0.3, "swir22": 0.3}


def chip(number: int = 0, *, lost: int = 4, cloud: int = 0) -> Chip:
    """Two glaciers of 20 rows each, on the left; the first loses columns in two years. Clouds hide the top rows."""
    label = np.zeros((3, SIZE, SIZE), np.uint8)
    label[:, :, :20] = GROUND.index("clean_ice")
    label[2, :20, 20 - lost : 20] = GROUND.index("other")
    glaciers = np.zeros((SIZE, SIZE), np.int32)
    glaciers[:20, :20], glaciers[20:, :20] = 1, 2
    weight = np.ones(label.shape, np.float32)
    weight[1, :cloud] = 0.2
    ice = label == GROUND.index("clean_ice")
    bands = {name: np.where(ice, BRIGHT[name], DARK[name]).astype(np.float32) for name in BRIGHT}
    return Chip(
        variables=bands | {"vv_db": np.zeros(label.shape, np.float32), "elevation": np.zeros((SIZE, SIZE), np.float32)},
        label=label,
        labels={name: (name,) for name in GROUND},
        weight=weight,
        time=np.array(["2018-08-01", "2018-08-20", "2020-08-01"], "datetime64[s]"),
        resolution=PIXEL,
        name=f"chip {number}",
        glaciers=glaciers,
    )


def maps(one: Chip, probability: npt.ArrayLike) -> Maps:
    ice = one.label == GROUND.index("clean_ice")
    year = one.time.astype("datetime64[Y]").astype(np.int64) + 1970
    return Maps(np.broadcast_to(np.asarray(probability, np.float64), ice.shape), ice, year)


def found(one: Chip, what: Maps, seed: int = 0) -> dict[tuple[int, str, str], AreaError]:
    return {(e.glacier, e.quantity, e.every): e for e in area_errors(one, what, np.random.default_rng(seed))}


def test_errors_are_of_what_is_called_ice_on_clear_ground() -> None:
    one = chip(lost=4)
    probability = np.full((3, SIZE, SIZE), 0.1)
    probability[:, :, :18] = 0.8  # two columns are missed at every date, and the loss is not seen
    errors = found(one, maps(one, probability))
    area = 20 * 20 * PIXEL**2 / 1e6
    assert {key[0] for key in errors} == {1, 2}
    steady = errors[2, "area", "observation"]
    assert steady.outline == pytest.approx(area)
    assert (steady.true, steady.said) == pytest.approx((area, 0.9 * area))
    scale = error_scale((0.9 * 0.2 + 0.1 * 0.1) * area, area)
    assert steady.score == pytest.approx(0.1 * area / scale)
    assert steady.share == pytest.approx(0.9)
    change = errors[1, "change", "year"]
    assert change.said == pytest.approx(0)
    assert change.true == pytest.approx(-0.2 * area)
    assert change.score == pytest.approx(-0.2 * area / error_scale(2 * (0.9 * 0.2 + 0.1 * 0.1) * area, area))
    assert errors[2, "change", "year"].true == 0


def test_hidden_and_small_glaciers_are_left_out() -> None:
    one = chip()
    probability = np.full((3, SIZE, SIZE), 0.8)
    probability[:, :15] = np.nan  # a quarter of the first glacier is left
    assert {key[0] for key in found(one, maps(one, probability))} == {2}
    assert one.glaciers is not None
    one.glaciers[20:] = 0
    one.glaciers[20:24, :10] = 3  # 0.016 km2
    assert {key[0] for key in found(one, maps(one, np.full((3, SIZE, SIZE), 0.8)))} == {1}


def test_clouds_hide_where_the_optical_sensor_is_used() -> None:
    rule = load_model("band-ratio")
    seen = maps_of(rule, chip(cloud=10))
    assert np.isnan(seen.probability[1, :10]).all()
    assert np.isfinite(seen.probability[[0, 2]]).all()
    np.testing.assert_array_equal(seen.probability[0] > 0.5, seen.ice[0])
    assert modalities_of(rule, without(chip(), ("sentinel-2",))) is None
    assert "elevation" not in without(chip(), ("dem",)).variables


def test_calibrations_know_their_scenes_and_hold_on_others(tmp_path: Path) -> None:
    rule = load_model("band-ratio")
    # The rule sees a share of each loss that hangs on the scene: columns turn dark before they lose their ice.
    rng = np.random.default_rng(1)

    def scenes(first: int) -> list[Chip]:
        chips = []
        for number in range(first, first + 60):
            one = chip(number, lost=int(rng.integers(0, 4)))
            dark = int(rng.integers(0, 4))
            for name, value in DARK.items():
                one.variables[name][:, :, 20 - dark : 20] = value
            chips.append(one)
        return chips

    measured = measure([rule], scenes(0))
    assert [entry.modalities for entry in measured] == [("optical",)]
    made = list(calibrations(measured))
    assert {(one.quantity, one.every) for one in made} == {
        (quantity, every) for quantity in ("area", "change") for every in ("observation", "year")
    }
    area = next(one for one in made if (one.quantity, one.every) == ("area", "year"))
    assert len(area.scores) == 120
    assert len(set(area.scenes)) == 60
    assert area.correlation > 0.5
    assert area.pixel_correlation is not None
    path = write_calibrations(made, tmp_path / "calibrations.json")
    fresh = scenes(100)
    held = list(check(rule, fresh, MAIN[0], path=path))
    # At 90 % so few kinds of loss have one quantile, with a reserve or without.
    more = write_calibrations([replace(one, reserve=0.1) for one in made], tmp_path / "more.json")
    half, bare = (list(check(rule, fresh, MAIN[0], path=each, level=0.5)) for each in (more, path))
    assert any(one.width > one.without_reserve[1] for one in half)
    assert [one.without_reserve for one in half] == [one.without_reserve for one in bare]
    for one in held:
        assert one.glaciers > 30
        assert one.inside + one.below + one.above == one.glaciers
        assert one.p_value == pytest.approx(binomtest(one.inside, one.glaciers, 0.9).pvalue)
        assert binomtest(one.inside, one.glaciers, 0.9, alternative="less").pvalue > 0.01
        assert sum(count for count, _, _ in one.sizes.values()) == one.glaciers


def test_errors_without_pixels_have_no_variogram() -> None:
    errors = [AreaError(f"s{i}", 1, "year", "area", 0.1 * i, 0.9, 1.0, 1.0, 1.0, 1.0) for i in range(5)]
    (one,) = calibrations([Measured(load_model("ndsi"), ("optical",), errors, [])])
    assert one.variogram == ()
    assert one.pixel_correlation is None
    assert one.correlation == 1.0  # one glacier per scene says nothing of two


@pytest.mark.parametrize("quantity", ["area", "change"])
@pytest.mark.parametrize("every", ["observation", "year"])
@pytest.mark.parametrize(
    ("name", "modalities"),
    [
        ("fusion-unet", ALL),
        ("fusion-unet", ("illumination", "optical", "relief", "terrain")),
        ("fusion-unet", ("optical",)),
        ("fusion-unet", ("optical", "radar", "relief", "terrain")),
        ("fusion-unet", ("radar", "relief", "terrain")),
        ("fusion-unet-time", ALL),
        ("fusion-unet-time", ("illumination", "optical", "relief", "terrain")),
        ("fusion-unet-time", ("optical",)),
        ("band-ratio", ("optical",)),
        ("ndsi", ("optical",)),
    ],
)
def test_shipped_models_have_intervals(name: str, modalities: tuple[str, ...], every: str, quantity: str) -> None:
    found = find_calibration(load_model(name).hash, modalities, every, quantity)  # type: ignore[arg-type]
    assert found is not None, "the weights have changed: make calibrate"
    assert len(found.scores) >= 1000
    for share in (0.2, 0.7, 0.95):
        low, high = found.quantiles(0.9, share)
        assert low <= high


@pytest.mark.skipif(not FULL, reason="takes minutes; make test-all runs it")
def test_intervals_hold_on_fresh_scenes_of_their_world(tmp_path: Path) -> None:
    """What split-conformal calibration promises: coverage on scenes of the world that it was measured in."""
    for name in ("fusion-unet", "band-ratio"):
        for one in check(load_model(name), draw_chips(FIRST_SEED + 50_000, 120, tmp_path), MAIN[0]):
            below = binomtest(one.inside, one.glaciers, 0.9, alternative="less").pvalue
            assert below > 0.01, (name, one)
