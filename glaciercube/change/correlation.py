"""Spatially correlated errors: from the probability of pixels to the error of a glacier's area and of a region's.

Assumption. The error of a pixel, truth less probability, has the mean 0 and the deviation sqrt(p (1 - p)), as that of a
calibrated probability has. The errors of two pixels are correlated by a function of their distance alone, the same in
all directions and in all scenes, which is the sum of a part that is of each pixel alone, exponentials of several
ranges, and a part that all pixels of a scene share. The weights of the parts are fitted to scenes of known truth. A
scene whose errors are all of one sign by its nature (another sun, another snow) is covered as far as the scenes of the
fit differ so, too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from glaciercube.errors import ModelError, require

__all__ = ["RANGES", "ErrorCorrelation", "area_std", "fit_correlation", "pixel_std"]

FloatArray: TypeAlias = npt.NDArray[np.float64]
BoolArray: TypeAlias = npt.NDArray[np.bool_]

#: Ranges in metres that a fit chooses among: 0 is of a pixel alone, infinity of the whole scene.
RANGES = (0.0, 20.0, 50.0, 120.0, 300.0, 800.0, 2000.0, math.inf)
#: Probabilities are taken for no surer than this: a model that says 0 or 1 may still be wrong.
SUREST = 0.01


@dataclass(frozen=True)
class ErrorCorrelation:
    """Covariance of standardised errors by distance: the sum of ``sill * exp(-distance / range)``.

    Attributes
    ----------
    ranges : tuple of float
        In metres; 0 stands for a pixel alone, infinity for a whole scene.
    sills : tuple of float
        Of each range, not below 0. Their sum is 1 where probabilities are calibrated, and more where they are too
        sure.
    """

    ranges: tuple[float, ...]
    sills: tuple[float, ...]

    def __post_init__(self) -> None:
        fine = len(self.ranges) == len(self.sills) and min((*self.ranges, *self.sills, 0.0)) >= 0
        require(
            fine,
            f"ranges {self.ranges} with sills {self.sills}",
            "give one sill per range, none below 0: no variance could be negative then",
        )

    def covariance(self, distance: npt.ArrayLike) -> FloatArray:
        """Covariance of two pixels' standardised errors.

        Parameters
        ----------
        distance : (...) float
            Between the two, metres.

        Returns
        -------
        (...) float64
            Dimensionless.
        """
        apart = np.asarray(distance, np.float64)
        return np.asarray(_parts(apart, self.ranges) @ np.asarray(self.sills, np.float64))


def pixel_std(probability: npt.NDArray[np.floating]) -> FloatArray:
    """Standard deviation of each pixel's error, sqrt(p (1 - p)).

    Parameters
    ----------
    probability : (...) floating
        0 to 1, NaN where there is none; taken for no surer than `SUREST`.

    Returns
    -------
    (...) float64
        0 where there is no probability.
    """
    p = np.clip(np.asarray(probability, np.float64), SUREST, 1.0 - SUREST)
    return np.where(np.isfinite(p), np.sqrt(p * (1.0 - p)), 0.0)


def area_std(
    probability: npt.NDArray[np.floating],
    resolution: float,
    correlation: ErrorCorrelation,
    inside: BoolArray | None = None,
) -> float:
    """Standard deviation of the error of an expected area, the sum of probability.

    The double sum over all pairs of pixels is taken by a convolution, exactly, so that a glacier or a whole region of
    glaciers (``inside`` is then all of them) costs a few transforms.

    Parameters
    ----------
    probability : (y, x) floating
        NaN where not seen: those pixels are neither in the area nor in its error.
    resolution : float
        Pixel size in metres.
    correlation : ErrorCorrelation
        Of the model's errors.
    inside : (y, x) bool, optional
        Pixels that the area is of.

    Returns
    -------
    float
        In km2.
    """
    from scipy.signal import fftconvolve

    std = pixel_std(probability)
    if inside is not None:
        std = np.where(inside, std, 0.0)
    rows, columns = (np.flatnonzero(std.any(axis=axis)) for axis in (1, 0))
    if not rows.size:
        return 0.0
    std = std[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    # What is of a pixel alone and what all share need no distances.
    local = [(r, s) for r, s in zip(correlation.ranges, correlation.sills, strict=True) if s > 0]
    variance = sum(s * float((std**2).sum()) for r, s in local if r == 0)
    variance += sum(s * float(std.sum()) ** 2 for r, s in local if math.isinf(r))
    near = [(r, s) for r, s in local if 0 < r < math.inf]
    if near:
        part = ErrorCorrelation(tuple(r for r, _ in near), tuple(s for _, s in near))
        kernel = part.covariance(_distances(std.shape, resolution))
        variance += float((std * fftconvolve(std, kernel, mode="same")).sum())
    return math.sqrt(max(variance, 0.0)) * resolution**2 / 1e6


def fit_correlation(
    scenes: Iterable[tuple[npt.NDArray[np.floating], npt.NDArray[np.bool_], float]],
    *,
    ranges: Sequence[float] = RANGES,
    farthest: float = 3000.0,
) -> ErrorCorrelation:
    """Fit the correlation of errors to scenes whose truth is known.

    At each distance the products of two pixels' errors are held against the products of their deviations, summed over
    all pairs of a scene at that distance; the weights of the ranges, none below 0, are those of least squares
    (a variogram of several nested exponentials with known ranges; Cressie 1993, Statistics for Spatial Data, ch. 2).
    Scenes weigh the same. The mean of a scene's errors is not taken out: it is what the scene's pixels share.

    Parameters
    ----------
    scenes : iterable of (probability, truth, resolution)
        (y, x) floating with NaN where not seen, (y, x) bool, and the pixel size in metres.
    ranges : sequence of float
        To choose among, in metres.
    farthest : float
        Largest distance that is looked at, in metres.

    Raises
    ------
    ModelError
        If there is no scene with a probability.
    """
    from scipy.optimize import nnls

    # Bins grow with distance; the first is the pixel itself.
    edges = np.concatenate([[0.0], np.geomspace(5.0, farthest, 25)])
    rows, values = [], []
    for probability, truth, resolution in scenes:
        found = _products(probability, truth, resolution, edges)
        if found is None:
            continue
        distance, error, std = found
        kept = std > 1e-9
        share = std[kept] / std[kept].sum()
        # A mean of many pairs is better known than one of few; near pairs matter as much as far ones.
        weight = np.sqrt(share + 1.0 / kept.sum())
        rows.append(_parts(distance[kept], ranges) * weight[:, None])
        values.append(error[kept] / std[kept] * weight)
    if not rows:
        raise ModelError("no scene has a probability and a truth", "give scenes that the model sees")
    sills, _ = nnls(np.concatenate(rows), np.concatenate(values))
    chosen = [(float(r), float(s)) for r, s in zip(ranges, sills, strict=True) if s > 1e-6]
    return ErrorCorrelation(tuple(r for r, _ in chosen), tuple(s for _, s in chosen))


def _parts(distance: FloatArray, ranges: Sequence[float]) -> FloatArray:
    """Each range's correlation at each distance, (..., range)."""
    return np.stack([np.exp(-distance / r) if r > 0 else (distance == 0).astype(np.float64) for r in ranges], axis=-1)


def _distances(shape: tuple[int, ...], resolution: float) -> FloatArray:
    """Distance of each lag between two pixels, in metres, the lag 0 in the middle."""
    y, x = (np.arange(-(n - 1), n, dtype=np.float64) * resolution for n in shape)
    return np.hypot(y[:, None], x[None, :])


def _products(
    probability: npt.NDArray[np.floating], truth: BoolArray, resolution: float, edges: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray] | None:
    """Mean distance of each bin, and the sums over its pairs of the products of errors and of deviations."""
    seen = np.isfinite(probability)
    if not seen.any():
        return None
    error = np.where(seen, truth - np.where(seen, probability, 0.0), 0.0)
    size = [2 * n - 1 for n in error.shape]
    distance = np.fft.ifftshift(_distances(error.shape, resolution))
    index = np.searchsorted(edges, distance.ravel(), side="right") - 1
    index[distance.ravel() == 0] = 0
    kept = index < len(edges) - 1
    index, distance = index[kept], distance.ravel()[kept]

    def binned(values: FloatArray) -> FloatArray:
        return np.asarray(np.bincount(index, values, minlength=len(edges) - 1), np.float64)

    std = _autocorrelation(pixel_std(probability), size).ravel()[kept]
    std_sum = binned(std)
    error_sum = binned(_autocorrelation(error, size).ravel()[kept])
    return binned(distance * std) / np.maximum(std_sum, 1e-12), error_sum, std_sum


def _autocorrelation(values: FloatArray, size: Sequence[int]) -> FloatArray:
    """Sum of products of all pairs at each lag, the lag 0 first."""
    found: FloatArray = np.fft.irfft2(np.abs(np.fft.rfft2(values, size)) ** 2, size)
    return found
