"""Whether probabilities mean what they say: calibration error, reliability table and plot, Brier score."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from glaciercube.errors import ModelError
from glaciercube.evaluation.boundary import distance_to_outline

if TYPE_CHECKING:
    from glaciercube.evaluation.cases import Case

__all__ = [
    "BINS",
    "NEAR",
    "Bin",
    "Reliability",
    "calibration_error",
    "pixels_of",
    "plot_reliability",
    "reliability",
    "save_reliability",
]

#: Number of bins, as in Guo et al. 2017.
BINS = 15
#: Metres from an outline within which a pixel is near it.
NEAR = 50.0

FloatArray = npt.NDArray[np.floating]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Bin:
    """Pixels of like probability.

    Attributes
    ----------
    low, high : float
        Limits of the probability.
    pixels : int
        How many.
    said, true : float
        Mean probability and share of ice; NaN without pixels.
    """

    low: float
    high: float
    pixels: int
    said: float
    true: float


@dataclass(frozen=True)
class Reliability:
    """Calibration of some pixels. Without any, all scores are NaN.

    Attributes
    ----------
    pixels : int
        How many.
    ece : float
        Expected calibration error over 15 bins of equal width: the mean over pixels of abs(said - true) of their bin
        (Guo et al. 2017, arXiv:1706.04599), 0 to 1.
    ece_equal_mass : float
        The same over 15 bins of as equally many pixels as ties allow, which does not hang on the few pixels of middling
        probability (Nixon et al. 2019, arXiv:1904.01685).
    brier : float
        Mean squared difference of probability and truth (Brier 1950), 0 to 1.
    said, true : float
        Mean probability and share of ice.
    bins : tuple of Bin
        Of equal width.
    """

    pixels: int
    ece: float
    ece_equal_mass: float
    brier: float
    said: float
    true: float
    bins: tuple[Bin, ...]


def reliability(probability: FloatArray, truth: BoolArray) -> Reliability:
    """Calibration of pixels.

    Parameters
    ----------
    probability : (...) floating
        0 to 1; NaN is left out. (y, x), or (pixel,), or any other shape.
    truth : (...) bool
        Whether it is ice, in that shape.
    """
    seen = np.isfinite(probability)
    p, y = probability[seen].astype(np.float64), truth[seen].astype(np.float64)
    edges = np.linspace(0.0, 1.0, BINS + 1)
    bins = _bins(p, y, _of_equal_width(p), edges)
    if p.size == 0:
        return Reliability(0, math.nan, math.nan, math.nan, math.nan, math.nan, bins)
    # Pixels of one probability stay in one bin: to part them would invent a difference among them.
    tops = np.unique(np.quantile(p, np.arange(1, BINS + 1) / BINS, method="inverted_cdf"))
    return Reliability(
        pixels=int(p.size),
        ece=calibration_error(p, y),
        ece_equal_mass=_error(np.searchsorted(tops, p), p, y, np.ones(p.size)),
        brier=float(np.mean((p - y) ** 2)),
        said=float(p.mean()),
        true=float(y.mean()),
        bins=bins,
    )


def calibration_error(
    probability: FloatArray, truth: BoolArray | FloatArray, weight: FloatArray | None = None
) -> float:
    """Expected calibration error over 15 bins of equal width, as in `Reliability`.

    Parameters
    ----------
    probability : (pixel,) floating
        0 to 1.
    truth : (pixel,) bool or floating
        Whether it is ice.
    weight : (pixel,) floating or None
        How many pixels each stands for; all the same when left out.

    Returns
    -------
    float
        0 to 1, NaN without pixels.
    """
    if not probability.size:
        return math.nan
    weight = np.ones(probability.size) if weight is None else weight
    return _error(_of_equal_width(probability), probability, truth, weight)


def pixels_of(cases: Iterable[Case], *, near: float | None = None) -> tuple[FloatArray, BoolArray]:
    """The pixels of all cases that have a probability and a label.

    Parameters
    ----------
    cases : iterable of Case
        Images.
    near : float or None
        Only those within this many metres of an outline of the label: easy background hides errors.

    Returns
    -------
    probability, truth : (pixel,) float32 and bool
    """
    probability, truth = [np.empty(0, np.float32)], [np.empty(0, bool)]
    for case in cases:
        kept = case.seen
        if near is not None:
            kept = kept & (distance_to_outline(case.truth, case.resolution, case.known) <= near)
        probability.append(case.probability[kept])
        truth.append(case.truth[kept])
    return np.concatenate(probability), np.concatenate(truth)


def plot_reliability(curves: dict[str, Reliability], title: str = "") -> object:
    """Draw the share of ice against the probability that was said, and how many pixels said it.

    Parameters
    ----------
    curves : dict of str to Reliability
        By name, such as ``"all pixels"``.
    title : str
        Title.

    Returns
    -------
    matplotlib Figure

    Raises
    ------
    ModelError
        If matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ModelError("pictures need matplotlib", "pip install 'glaciercube[view]'") from error
    figure = Figure(figsize=(4.6, 5.6), layout="constrained", dpi=110)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    upper.plot([0, 1], [0, 1], color="0.6", lw=1)
    for name, curve in curves.items():
        full = [one for one in curve.bins if one.pixels]
        label = f"{name}: ECE {curve.ece:.3f}" if full else f"{name}: no pixels"
        upper.plot([one.said for one in full], [one.true for one in full], "o-", ms=4, label=label)
        limits = [*(one.low for one in curve.bins), curve.bins[-1].high]
        lower.stairs([max(one.pixels, 0.5) for one in curve.bins], limits, baseline=None)
    upper.set(ylabel="share that is ice", ylim=(0, 1), xlim=(0, 1), title=title)
    lower.set(xlabel="probability", ylabel="pixels", yscale="log")
    upper.legend(frameon=False, fontsize=8)
    return figure


def save_reliability(curves: dict[str, Reliability], path: str | Path, title: str = "") -> Path:
    """Draw `plot_reliability` to a file."""
    figure = plot_reliability(curves, title)
    figure.savefig(path)  # type: ignore[attr-defined]
    return Path(path)


def _bins(p: FloatArray, y: FloatArray, index: npt.NDArray[np.int64], edges: FloatArray) -> tuple[Bin, ...]:
    count = len(edges) - 1
    pixels = np.bincount(index, minlength=count)
    said, true = np.bincount(index, weights=p, minlength=count), np.bincount(index, weights=y, minlength=count)
    return tuple(
        Bin(float(edges[i]), float(edges[i + 1]), int(n), *_means(said[i], true[i], int(n)))
        for i, n in enumerate(pixels)
    )


def _means(said: float, true: float, pixels: int) -> tuple[float, float]:
    return (float(said) / pixels, float(true) / pixels) if pixels else (math.nan, math.nan)


def _of_equal_width(probability: FloatArray) -> npt.NDArray[np.int64]:
    """The bin of each pixel."""
    index: npt.NDArray[np.int64] = np.minimum((probability * BINS).astype(np.int64), BINS - 1)
    return index


def _error(index: npt.NDArray[np.int64], said: FloatArray, true: BoolArray | FloatArray, weight: FloatArray) -> float:
    """The mean over pixels of abs(said - true) of their bin."""
    return float(np.abs(np.bincount(index, weight * (said - true))).sum() / weight.sum())
