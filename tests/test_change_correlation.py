"""The error of a sum of correlated pixels is what it is, and not what independent pixels would have."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest
from scipy.special import ndtri

from glaciercube.change.correlation import ErrorCorrelation, area_std, fit_correlation, pixel_std
from glaciercube.errors import GlaciercubeError

SIZE, PIXEL = 40, 20.0


def field(rng: np.random.Generator, reach: float, size: int = SIZE) -> npt.NDArray[np.float64]:
    """Gaussian noise whose covariance is exp(-distance / reach), by circulant embedding."""
    lag = np.minimum(np.arange(4 * size), 4 * size - np.arange(4 * size)) * PIXEL
    spectrum = np.fft.fft2(np.exp(-np.hypot(lag[:, None], lag[None, :]) / reach)).real.clip(min=0)
    noise = rng.normal(size=spectrum.shape) + 1j * rng.normal(size=spectrum.shape)
    found: npt.NDArray[np.float64] = np.fft.fft2(np.sqrt(spectrum / spectrum.size) * noise).real[:size, :size]
    return found


def scenes(
    seed: int, count: int, reach: float
) -> Iterator[tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_], float]]:
    """Calibrated probabilities and truths whose errors are correlated: ice where noise lies under the p-quantile."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIZE, :SIZE]
    for _ in range(count):
        tongue = 9 - np.hypot(y - rng.uniform(12, 28), 0.6 * (x - rng.uniform(12, 28)))
        probability = 1 / (1 + np.exp(-tongue / 2))
        yield probability, field(rng, reach) < ndtri(probability), PIXEL


def test_the_sum_over_all_pairs_is_exact() -> None:
    rng = np.random.default_rng(0)
    probability = rng.random((9, 13))
    probability[2, 3:6] = np.nan
    inside = rng.random(probability.shape) < 0.7
    correlation = ErrorCorrelation((0.0, 30.0, 400.0, math.inf), (0.3, 0.4, 0.2, 0.1))
    y, x = np.mgrid[:9, :13] * PIXEL
    apart = np.hypot(np.subtract.outer(y.ravel(), y.ravel()), np.subtract.outer(x.ravel(), x.ravel()))
    std = (pixel_std(probability) * inside).ravel()
    by_hand = math.sqrt(std @ correlation.covariance(apart) @ std) * PIXEL**2 / 1e6
    assert area_std(probability, PIXEL, correlation, inside) == pytest.approx(by_hand, rel=1e-9)
    assert area_std(np.full((4, 4), np.nan), PIXEL, correlation) == 0


@pytest.mark.parametrize("reach", [60.0, 400.0])
def test_fitted_correlation_gives_the_error_of_areas_and_independence_does_not(reach: float) -> None:
    fitted = fit_correlation(scenes(1, 60, reach))
    assert sum(fitted.sills) == pytest.approx(1.0, abs=0.15)  # these probabilities are calibrated
    alone = ErrorCorrelation((0.0,), (1.0,))
    standard, naive = [], []
    for probability, truth, pixel in scenes(2, 120, reach):
        error = (truth.sum() - probability.sum()) * pixel**2 / 1e6
        standard.append(error / area_std(probability, pixel, fitted))
        naive.append(error / area_std(probability, pixel, alone))
    # 120 draws of a deviation have a relative error of 6%.
    assert np.std(standard) == pytest.approx(1.0, abs=0.25)
    assert np.std(naive) > 2.0


def test_errors_of_a_whole_scene_do_not_average_out() -> None:
    """Half of the scenes say too much everywhere and half too little: no size of region helps."""

    def made() -> Iterator[tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_], float]]:
        rng = np.random.default_rng(3)
        for number in range(40):
            yield np.full((SIZE, SIZE), 0.5), rng.random((SIZE, SIZE)) < (0.3 if number % 2 else 0.7), PIXEL

    fitted = fit_correlation(made())
    shared = dict(zip(fitted.ranges, fitted.sills, strict=True))
    assert shared[math.inf] == pytest.approx(0.16, abs=0.02)  # 0.2**2 of a variance of 0.25
    small, large = (area_std(np.full((n, n), 0.5), PIXEL, fitted) for n in (10, 40))
    assert large == pytest.approx(16 * small, rel=0.05)


def test_what_is_no_covariance_is_refused() -> None:
    with pytest.raises(GlaciercubeError, match="none below 0"):
        ErrorCorrelation((0.0, 10.0), (1.0, -0.2))
    with pytest.raises(GlaciercubeError, match="no scene has a probability"):
        fit_correlation([(np.full((3, 3), np.nan), np.zeros((3, 3), bool), 10.0)])
