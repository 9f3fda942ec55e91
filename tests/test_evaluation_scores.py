"""Overlap, boundary distance and calibration against cases computed by hand and by brute force."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from scipy.spatial.distance import cdist

from glaciercube.errors import ModelError
from glaciercube.evaluation.boundary import boundary, distance_to_outline, outline_distances
from glaciercube.evaluation.cases import Case
from glaciercube.evaluation.reliability import pixels_of, reliability, save_reliability
from glaciercube.evaluation.segmentation import (
    Confusion,
    best_threshold,
    confusion,
    debris_confusion,
    near_edge,
    segmentation,
    tolerant_confusion,
)

MASKS = hnp.arrays(bool, st.just((5, 6)))


def case_of(probability: np.ndarray, truth: np.ndarray, resolution: float = 10.0, **other: Any) -> Case:
    every = np.ones(truth.shape, bool)
    layers: dict[str, Any] = {"known": every, "counted": every, **other}
    return Case(
        "a", np.datetime64("2021-08-01", "s"), probability.astype(np.float32), truth, resolution=resolution, **layers
    )


def square(low: int, high: int, size: int = 20) -> np.ndarray:
    mask = np.zeros((size, size), bool)
    mask[low:high, low:high] = True
    return mask


def test_scores_of_a_confusion_by_hand() -> None:
    said = np.array([1, 1, 1, 0, 0, 0, 0, 1], bool)
    true = np.array([1, 1, 0, 1, 0, 0, 0, 0], bool)
    found = confusion(said, true, np.array([1, 1, 1, 1, 1, 1, 1, 0], bool))
    assert found == Confusion(hits=2, false_alarms=1, misses=1, rejections=3)
    assert (found.iou, found.f1) == (2 / 4, 4 / 6)
    assert (found.precision, found.recall, found.accuracy) == (2 / 3, 2 / 3, 5 / 7)


@given(MASKS, MASKS)
def test_overlap_is_that_of_sets_of_pixels_and_symmetric(said: np.ndarray, true: np.ndarray) -> None:
    one, other = set(map(tuple, np.argwhere(said))), set(map(tuple, np.argwhere(true)))
    found, swapped = confusion(said, true), confusion(true, said)
    if not one | other:
        assert math.isnan(found.iou)
        return
    assert found.iou == len(one & other) / len(one | other) == swapped.iou
    assert found.f1 == pytest.approx(2 * found.iou / (1 + found.iou)) == pytest.approx(swapped.f1)
    assert math.isnan(found.precision) if not one else found.precision == len(one & other) / len(one)
    assert math.isnan(found.recall) if not other else found.recall == swapped.precision


def test_nothing_said_and_nothing_true_has_no_overlap() -> None:
    empty = confusion(np.zeros(4, bool), np.zeros(4, bool))
    assert all(math.isnan(value) for value in (empty.iou, empty.f1, empty.precision, empty.recall))
    assert empty.accuracy == 1


def test_shapes_that_differ_are_refused() -> None:
    with pytest.raises(ModelError, match="on one grid"):
        confusion(np.zeros((2, 3), bool), np.zeros((3, 2), bool))


def test_label_moved_in_or_out_by_a_pixel_is_within_the_tolerance_and_by_two_is_not() -> None:
    truth, full = square(6, 14), np.ones((3, 3), bool)
    for step in (ndimage.binary_dilation, ndimage.binary_erosion):
        once, twice = step(truth, full), step(truth, full, iterations=2)
        assert confusion(once, truth).iou < 0.7
        assert tolerant_confusion(once, truth).iou == 1
        assert tolerant_confusion(twice, truth).iou < 1
    # 8 x 8 ice loses its rim of 28 pixels, and the ground one of 36.
    assert near_edge(truth).sum() == 28 + 36


def test_speckle_gains_nothing_from_the_tolerance() -> None:
    truth = square(4, 16)
    speckle = np.zeros_like(truth)
    speckle[::3, ::3] = True
    assert tolerant_confusion(speckle, truth).iou < 0.2


def test_edge_of_what_is_known_is_no_edge_of_the_label() -> None:
    truth, known = square(0, 10), np.zeros((20, 20), bool)
    known[:, :10] = True
    assert not near_edge(truth, known)[:8].any()
    assert near_edge(truth, known)[9, 3]


@given(hnp.arrays(np.float32, 12, elements=st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0])), hnp.arrays(bool, 12))
def test_best_threshold_beats_every_other(p: np.ndarray, truth: np.ndarray) -> None:
    threshold, iou = best_threshold(p, truth)
    if not truth.any():
        assert math.isnan(iou)
        return
    assert confusion(p > threshold, truth).iou == pytest.approx(iou)
    assert iou >= max(confusion(p > t, truth).iou for t in (-0.1, 0.05, 0.2, 0.3, 0.7, 0.95)) - 1e-12


def test_images_are_pooled_by_pixels_and_unseen_ones_told() -> None:
    good, bad = square(5, 15).astype(float), np.zeros((20, 20))
    bad[:2] = np.nan
    found = segmentation([case_of(good, square(5, 15)), case_of(bad, square(5, 10))])
    assert [image.iou for image in found.images] == [1, 0]
    assert found.mean_iou == 0.5
    assert found.pooled.iou == 100 / 125
    assert found.unseen == 40
    with pytest.raises(ModelError, match="no pixel"):
        segmentation([case_of(np.full((20, 20), np.nan), square(5, 10))])


def test_debris_is_scored_without_the_clean_ice_that_hides_it() -> None:
    truth, debris, said = square(0, 10), np.zeros((20, 20), bool), square(0, 10)
    debris[8:10, :10] = True
    said[9] = False  # half of the debris
    said[15, :5] = True  # ground that is called ice
    found = debris_confusion([case_of(said, truth, debris=debris), case_of(said, truth)])
    assert (found.hits, found.misses, found.false_alarms) == (10, 10, 5)
    assert found.pixels == 400 - 80


def edges_of(mask: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Middles of edges in units of pixels, the slow way."""
    found = []
    for y, x in np.ndindex(mask.shape):
        for ny, nx in ((y + 1, x), (y, x + 1)):
            inside = ny < mask.shape[0] and nx < mask.shape[1]
            if inside and known[y, x] and known[ny, nx] and mask[y, x] != mask[ny, nx]:
                found.append(((y + ny) / 2, (x + nx) / 2))
    return np.array(found).reshape(-1, 2)


@given(MASKS, MASKS, MASKS)
def test_outline_distances_are_those_of_all_pairs_of_edges(
    said: np.ndarray, true: np.ndarray, known: np.ndarray
) -> None:
    found = np.sort(outline_distances(said, true, 30.0, known))
    one, other = edges_of(said, known), edges_of(true, known)
    if not len(one) or not len(other):
        assert not found.size
        return
    pairs = cdist(one, other) * 30
    np.testing.assert_allclose(found, np.sort(np.concatenate([pairs.min(axis=1), pairs.min(axis=0)])))


def test_outline_moved_by_two_pixels_is_that_far_away() -> None:
    truth, said = np.zeros((8, 30), bool), np.zeros((8, 30), bool)
    truth[:, :10], said[:, :12] = True, True
    found = boundary([case_of(said, truth, 20.0)])
    assert (found.mean, found.median, found.percentile_95) == (40, 40, 40)
    assert found.edges == 16
    np.testing.assert_allclose(distance_to_outline(truth, 20.0)[0, 8:12], [30, 10, 10, 30])


def test_images_without_an_outline_are_counted() -> None:
    ice, none = square(5, 15), np.zeros((20, 20), bool)
    found = boundary([case_of(p, t) for p, t in ((ice, ice), (none, ice), (ice, none), (none, none), (none, ice))])
    assert (found.images, found.none_predicted, found.none_true, found.neither) == (1, 2, 1, 1)
    assert found.mean == 0
    nothing = boundary([case_of(none, ice)])
    assert math.isnan(nothing.mean)
    assert math.isnan(nothing.percentile_95)


def test_calibrated_forecast_has_no_error_and_a_shifted_one_its_shift() -> None:
    # Fifteen probabilities, each with exactly the share of ice that it says.
    p = np.repeat((np.arange(15) + 0.5) / 15, 30)
    y = np.concatenate([np.arange(30) < round(30 * (k + 0.5) / 15) for k in range(15)])
    found = reliability(p, y)
    assert found.ece == pytest.approx(0, abs=1e-12)
    assert found.ece_equal_mass == pytest.approx(0, abs=1e-12)
    assert found.brier == pytest.approx(np.mean((p - y) ** 2))
    shifted = reliability(np.clip(p - 1 / 30, 0, 1), y)
    assert shifted.ece == pytest.approx(1 / 30)
    assert shifted.ece_equal_mass == pytest.approx(1 / 30)


def test_calibration_error_by_hand() -> None:
    p = np.array([0.02, 0.04, 0.04, 0.9, 0.9, 1.0, np.nan])
    y = np.array([0, 0, 1, 1, 0, 1, 1], bool)
    found = reliability(p, y)
    assert found.pixels == 6
    # Bins: {0.02, 0.04, 0.04} says 0.1 / 3 and is 1 / 3; {0.9, 0.9} says 0.9, is 0.5; {1.0} is right.
    assert found.ece == pytest.approx((3 * abs(0.1 / 3 - 1 / 3) + 2 * 0.4) / 6)
    # Ties stay together: {0.02}, {0.04, 0.04}, {0.9, 0.9}, {1.0}.
    assert found.ece_equal_mass == pytest.approx((0.02 + 2 * 0.46 + 2 * 0.4) / 6)
    assert found.brier == pytest.approx((0.02**2 + 0.04**2 + 0.96**2 + 0.1**2 + 0.9**2) / 6)
    assert [one.pixels for one in found.bins] == [3, *[0] * 12, 2, 1]
    assert math.isnan(found.bins[5].true)


@given(hnp.arrays(float, 40, elements=st.floats(0, 1)), hnp.arrays(bool, 40))
def test_calibration_error_bounds_the_bias(p: np.ndarray, y: np.ndarray) -> None:
    found = reliability(p, y)
    for ece in (found.ece, found.ece_equal_mass):
        assert abs(found.said - found.true) - 1e-12 <= ece <= 1
    assert sum(one.pixels for one in found.bins) == 40


def test_no_pixels_have_no_calibration() -> None:
    found = reliability(np.array([np.nan]), np.array([True]))
    assert found.pixels == 0
    assert math.isnan(found.ece)
    assert math.isnan(found.brier)


def test_easy_background_hides_errors_that_are_near_the_outlines() -> None:
    truth = square(40, 60, size=100)
    p = np.where(ndimage.binary_dilation(truth, iterations=3), 0.99, 0.0)
    case = case_of(p, truth)
    everywhere, near = (reliability(*pixels_of([case], near=limit)) for limit in (None, 50.0))
    assert near.pixels < everywhere.pixels / 5
    assert near.ece > 5 * everywhere.ece
    # Five pixels of 10 m on each side of a straight outline.
    row = distance_to_outline(truth, 10.0)[50]
    assert (row <= 50).sum() == 20


def test_reliability_is_drawn(tmp_path: Path) -> None:
    drawn = save_reliability({"all": reliability(np.array([0.2, 0.8]), np.array([False, True]))}, tmp_path / "r.png")
    assert drawn.read_bytes().startswith(b"\x89PNG")
