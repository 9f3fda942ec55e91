"""Shifts between dates and of outlines, and what flows into mapped ice."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from glaciercube.bench.corrections import CORRECTIONS, correction_scores
from glaciercube.bench.flow import drainage, fed_terminus, with_accumulation
from glaciercube.cube.coregister import image_shift, outline_shift
from glaciercube.errors import CubeError
from glaciercube.models import load_model
from glaciercube.models.chips import Chip


def ground(seed: int = 0, size: int = 160) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return ndimage.gaussian_filter(rng.normal(size=(size, size)), 1.5) + ndimage.gaussian_filter(
        rng.normal(size=(size, size)), 12
    )


@pytest.mark.parametrize(("down", "right"), [(0.0, 0.0), (3.0, -2.0), (0.4, 1.3), (-2.75, 0.1)])
def test_a_shift_of_an_image_is_found_to_a_tenth_of_a_pixel(down: float, right: float) -> None:
    reference = ground()
    rng = np.random.default_rng(1)
    image = 3.0 * ndimage.shift(reference, (down, right), order=5, mode="reflect") + 0.02 * rng.normal(
        size=reference.shape
    )
    image[40:60, 90:130] = np.nan
    found = image_shift(image, reference, 10.0)
    assert found.x == pytest.approx(10 * right, abs=1.0)
    assert found.y == pytest.approx(-10 * down, abs=1.0)
    assert found.score > 12


def test_images_of_other_ground_have_no_peak_and_missing_ones_no_shift() -> None:
    assert image_shift(ground(1), ground(2), 10.0).score < 8
    gone = ground()
    gone[:100] = np.nan
    assert np.isnan(image_shift(gone, ground(), 10.0).x)
    with pytest.raises(CubeError, match="one grid"):
        image_shift(ground(), ground(size=80), 10.0)


@pytest.mark.parametrize(("down", "right"), [(0, 0), (2, -3), (-4, 1)])
def test_a_shifted_outline_is_found_and_told_with_its_direction(down: int, right: int) -> None:
    ice = ndimage.gaussian_filter(ground(3), 6) > 0.05
    image = np.where(ice, 0.8, 0.2) + 0.1 * ground(4)
    image[:, 70:75] = np.nan
    outline = np.roll(ice, (down, right), (0, 1))
    found = outline_shift(image, outline, 20.0)
    assert found.x == pytest.approx(20 * right, abs=6.0)
    assert found.y == pytest.approx(-20 * down, abs=6.0)
    assert (found.score > 0.05) == bool(down or right)
    assert np.isnan(outline_shift(image, np.ones_like(ice), 20.0).x)


def test_ground_drains_to_its_frame_over_hollows() -> None:
    y, x = np.mgrid[:30, :40]
    slope = 1000.0 + 10.0 * y  # falls to the north
    slope[10:13, 10:13] -= 200.0
    drains = drainage(slope)
    assert (drains.filled >= slope).all()
    assert drains.filled[11, 11] == pytest.approx(1090.0)
    assert len(drains.order) == 1200
    place = np.empty(1200, int)
    place[drains.order] = np.arange(1200)
    inner = np.flatnonzero(drains.receiver != np.arange(1200))
    assert (place[drains.receiver[inner]] < place[inner]).all()
    steps = drains.receiver
    for _ in range(1200):
        steps = drains.receiver[steps]
    rows, columns = np.divmod(steps, 40)
    assert ((rows == 0) | (rows == 29) | (columns == 0) | (columns == 39)).all()
    assert (x >= 0).all()
    with pytest.raises(CubeError, match="no elevation"):
        drainage(np.full((4, 4), np.nan))


def test_snow_that_drains_into_ice_is_added_and_ice_that_nothing_feeds_goes() -> None:
    y, _ = np.mgrid[:60, :20]
    drains = drainage(1000.0 + 10.0 * y)
    ice, snow = np.zeros((2, 60, 20), bool)
    ice[10:30, 8:12] = True
    snow[30:50, 8:12] = True
    snow[40:42] = False  # what lies above bare ground drains over it
    snow[20:30, 15:18] = True  # beside the tongue, and not above it
    found = with_accumulation(ice, snow, drains)
    assert found[31:39, 9:11].all()
    assert not found[42:].any()
    assert not found[:, 15:18].any()
    assert (fed_terminus(ice, drains) == ice).all()
    # A knoll in the lowest 15 % that stands above all ice beside it is fed by none.
    knoll = 1000.0 + 10.0 * y
    knoll[11, 10] = 1125.0
    wanted = ice.copy()
    wanted[11, 10] = False
    np.testing.assert_array_equal(fed_terminus(ice, drainage(knoll)), wanted)


def test_corrections_are_scored_against_the_truth_with_and_without() -> None:
    ice = ndimage.gaussian_filter(ground(3), 6) > 0.05
    bands = {"red": (0.8, 0.1), "green": (0.8, 0.1), "swir16": (0.05, 0.1), "blue": (0.6, 0.1)}
    variables = {name: np.where(ice, *values)[None].astype(np.float32) for name, values in bands.items()}
    slope = np.where(np.arange(160) < 80, 45.0, 10.0)[None] * np.ones((160, 1))
    chip = Chip(
        variables | {"slope": slope, "elevation": 4000.0 - 10 * np.mgrid[:160, :160][0]},
        ice[None].astype(np.uint8),
        {"other": ("other",), "clean_ice": ("clean_ice",)},
        np.ones((1, 160, 160), np.float32),
        np.array(["2020-08-01"], "datetime64[s]"),
        20.0,
        "made",
    )
    iou = {
        title: [one["hit"] / one["either"] for one in pair]
        for title, pair in correction_scores(load_model("band-ratio"), chip).items()
    }
    assert tuple(iou) == CORRECTIONS
    steep = ice[:, :80].sum() / ice.sum()
    assert iou["candidates by slope: none above 40 degrees"] == [1.0, pytest.approx(1 - steep)]
    assert iou["candidates by slope: none above 50 degrees"] == [1.0, 1.0]
    assert iou["flow routing: snow that drains into ice"] == [1.0, 1.0]
    without, moved_back = iou["co-registration of outlines"]
    assert without < 0.95
    assert moved_back == 1.0
