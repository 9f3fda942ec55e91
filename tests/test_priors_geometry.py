"""Shifts between dates and of outlines, and what flows into mapped ice."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from glaciercube.cube.coregister import image_shift, outline_shift
from glaciercube.errors import CubeError


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
