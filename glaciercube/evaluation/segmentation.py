"""Overlap of a map with its label: confusion, IoU, F1, precision and recall, pooled and per image."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from glaciercube.errors import ModelError

if TYPE_CHECKING:
    from glaciercube.evaluation.cases import Case

__all__ = [
    "Confusion",
    "Segmentation",
    "best_threshold",
    "confusion",
    "debris_confusion",
    "near_edge",
    "segmentation",
    "tolerant_confusion",
]

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Confusion:
    """Pixels by what was said and what is true. Scores that would divide by zero are NaN.

    Attributes
    ----------
    hits, false_alarms, misses, rejections : int
        Said and true; said and not true; true and not said; neither.
    """

    #: Scores that a report tells beside the counts.
    COMPUTED: ClassVar = ("iou", "f1", "precision", "recall", "accuracy", "pixels")

    hits: int = 0
    false_alarms: int = 0
    misses: int = 0
    rejections: int = 0

    def __add__(self, other: Confusion) -> Confusion:
        return Confusion(
            self.hits + other.hits,
            self.false_alarms + other.false_alarms,
            self.misses + other.misses,
            self.rejections + other.rejections,
        )

    @property
    def pixels(self) -> int:
        """All that were compared."""
        return self.hits + self.false_alarms + self.misses + self.rejections

    @property
    def iou(self) -> float:
        """Intersection over union; NaN where nothing was said and nothing is true."""
        return _over(self.hits, self.hits + self.false_alarms + self.misses)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        return _over(2 * self.hits, 2 * self.hits + self.false_alarms + self.misses)

    @property
    def precision(self) -> float:
        """Share of what was said that is true."""
        return _over(self.hits, self.hits + self.false_alarms)

    @property
    def recall(self) -> float:
        """Share of what is true that was said."""
        return _over(self.hits, self.hits + self.misses)

    @property
    def accuracy(self) -> float:
        """Share of pixels that were said rightly."""
        return _over(self.hits + self.rejections, self.pixels)


@dataclass(frozen=True)
class Segmentation:
    """Overlap over several images.

    Attributes
    ----------
    threshold : float
        Probability above which a pixel is said to be ice.
    pooled : Confusion
        Of all images' pixels together.
    images : tuple of Confusion
        Of each.
    tolerant : Confusion
        Pooled, without the pixels within one of a label's edge: see `tolerant_confusion`.
    best_threshold, best_iou : float
        The threshold that gives the highest pooled IoU, chosen with sight of the labels: what no threshold can beat,
        and no score of the model.
    unseen : int
        Pixels that have a label and no probability, and are in none of the above.
    """

    #: As of `Confusion`.
    COMPUTED: ClassVar = ("mean_iou",)

    threshold: float
    pooled: Confusion
    images: tuple[Confusion, ...]
    tolerant: Confusion
    best_threshold: float
    best_iou: float
    unseen: int

    @property
    def mean_iou(self) -> float:
        """Mean IoU of the images that have one; NaN where none has."""
        known = [image.iou for image in self.images if not math.isnan(image.iou)]
        return float(np.mean(known)) if known else math.nan


def confusion(said: BoolArray, truth: BoolArray, counted: BoolArray | None = None) -> Confusion:
    """Compare a map with its label.

    Parameters
    ----------
    said, truth : (...) bool
        Map and label: (y, x), or (pixel,), or any other shape that both have.
    counted : (...) bool or None
        Pixels that count, in that shape; all of them when left out.

    Raises
    ------
    ModelError
        If the shapes differ.
    """
    shapes = {said.shape, truth.shape, *(() if counted is None else (counted.shape,))}
    if len(shapes) > 1:
        raise ModelError(f"a map of shape {said.shape} and a label of {truth.shape}", "give both on one grid")
    if counted is not None:
        said, truth = said[counted], truth[counted]
    hits, called, true = int((said & truth).sum()), int(said.sum()), int(truth.sum())
    return Confusion(hits, called - hits, true - hits, said.size - called - true + hits)


def near_edge(truth: BoolArray, known: BoolArray | None = None) -> BoolArray:
    """Pixels within one pixel of a label's edge: any of their eight neighbours that is known has the other label.

    Parameters
    ----------
    truth : (y, x) bool
        The label.
    known : (y, x) bool or None
        Where it is known; everywhere when left out.
    """
    known = np.ones_like(truth) if known is None else known
    square = np.ones((3, 3), bool)
    beside_ice = ndimage.binary_dilation(truth & known, square)
    beside_other = ndimage.binary_dilation(~truth & known, square)
    edge: BoolArray = beside_ice & beside_other & known
    return edge


def tolerant_confusion(
    said: BoolArray, truth: BoolArray, counted: BoolArray | None = None, known: BoolArray | None = None
) -> Confusion:
    """Compare a map with its label, edges left out: the IoU with a tolerance of one pixel.

    The pixels that touch one of the other label, corners included, are mixed in the image and arbitrary in the
    digitising; they are left out on both sides of the edge, as the void pixels of PASCAL VOC (Everingham et al. 2010,
    doi:10.1007/s11263-009-0275-4). A label that is dilated or eroded by one pixel then scores 1. The rule does not
    depend on the map, so that no map can gain from it by speckle, as from a rule that forgives whatever lies within a
    pixel of what is said. Ice of one or two pixels' width is all edge and does not count.

    Parameters
    ----------
    said, truth : (y, x) bool
        Map and label.
    counted : (y, x) bool or None
        Pixels that count; all of them when left out.
    known : (y, x) bool or None
        Where the label is known, also where a pixel does not count, since that has edges too; everywhere when left out.

    Raises
    ------
    ModelError
        If the shapes differ.
    """
    counted = np.ones_like(truth) if counted is None else counted
    return confusion(said, truth, counted & ~near_edge(truth, known))


def best_threshold(probability: npt.NDArray[np.floating], truth: BoolArray) -> tuple[float, float]:
    """The threshold that gives the highest IoU, in sight of the label.

    Parameters
    ----------
    probability : (...) floating
        0 to 1; NaN is left out. (y, x), or (pixel,), or any other shape.
    truth : (...) bool
        Whether it is ice, in that shape.

    Returns
    -------
    threshold, iou : float
        A pixel is said to be ice where the probability is above the threshold. NaN where there is no ice.
    """
    seen = np.isfinite(probability)
    values, ice = probability[seen].astype(np.float64), truth[seen]
    total = int(ice.sum())
    if total == 0:
        return math.nan, math.nan
    order = np.argsort(-values, kind="stable")
    values, hits = values[order], np.cumsum(ice[order])
    # A threshold takes all pixels of one value or none.
    last = np.flatnonzero(np.append(values[1:] != values[:-1], True))
    ious = hits[last] / (total + last + 1 - hits[last])
    best = int(np.argmax(ious))
    here = values[last[best]]
    below = values[last[best] + 1] if last[best] + 1 < values.size else min(0.0, here) - 1e-6
    return float((here + below) / 2), float(ious[best])


def segmentation(cases: Iterable[Case], threshold: float = 0.5) -> Segmentation:
    """Overlap of all cases.

    Raises
    ------
    ModelError
        If there is no pixel to compare.
    """
    cases = list(cases)
    images = tuple(confusion(case.probability > threshold, case.truth, case.seen) for case in cases)
    if sum(image.pixels for image in images) == 0:
        raise ModelError("no pixel has both a probability and a label", "give scenes that the model can see")
    tolerant = (tolerant_confusion(case.probability > threshold, case.truth, case.seen, case.known) for case in cases)
    chosen, reached = best_threshold(
        np.concatenate([case.probability[case.seen] for case in cases]),
        np.concatenate([case.truth[case.seen] for case in cases]),
    )
    return Segmentation(
        threshold=threshold,
        pooled=sum(images, Confusion()),
        images=images,
        tolerant=sum(tolerant, Confusion()),
        best_threshold=chosen,
        best_iou=reached,
        unseen=sum(int((case.counted & ~case.seen).sum()) for case in cases),
    )


def debris_confusion(cases: Iterable[Case], threshold: float = 0.5) -> Confusion:
    """Overlap of debris-covered ice with what is said to be ice, clean ice left out.

    Clean ice is easy and hides what a map does under debris. Cases whose labels do not tell debris are left out.
    """
    found = Confusion()
    for case in cases:
        if case.debris is not None:
            counted = case.seen & (case.debris | ~case.truth)
            found += confusion(case.probability > threshold, case.truth & case.debris, counted)
    return found


def _over(part: int, whole: int) -> float:
    return part / whole if whole else math.nan
