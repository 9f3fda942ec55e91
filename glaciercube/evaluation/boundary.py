"""How far predicted outlines lie from true ones, in metres.

An outline is the set of pixel edges between ice and no ice, each edge by its middle: it lies between the pixels and so
is the same whether ice or ground is asked for it. The rim of an image, of cloud and of unknown ground is no outline.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy import ndimage

if TYPE_CHECKING:
    from glaciercube.evaluation.cases import Case

__all__ = ["Boundary", "boundary", "distance_to_outline", "outline_distances"]

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Boundary:
    """Distance between predicted and true outlines, both ways: from each to the nearest point of the other.

    Attributes
    ----------
    mean, median, percentile_95 : float
        In metres, over the edges of all images' predicted and true outlines together; NaN without any.
    edges : int
        Predicted and true pixel edges that were measured from.
    images : int
        With both outlines: those that the distances are of.
    none_predicted, none_true, neither : int
        Images with a true outline alone, a predicted one alone, and none. They have no distance, and are in no mean.
    """

    mean: float
    median: float
    percentile_95: float
    edges: int
    images: int
    none_predicted: int
    none_true: int
    neither: int


def distance_to_outline(
    mask: BoolArray, resolution: float, counted: BoolArray | None = None
) -> npt.NDArray[np.float64]:
    """Distance of each pixel's centre from the nearest outline of a mask.

    Parameters
    ----------
    mask : (y, x) bool
        Ice.
    resolution : float
        Pixel size in metres.
    counted : (y, x) bool or None
        Where the mask is known; everywhere when left out.

    Returns
    -------
    (y, x) float64
        In metres: half a pixel beside an outline. Infinite where there is no outline.
    """
    return _distances(_edges(mask, counted), resolution)[::2, ::2]


def outline_distances(
    said: BoolArray, truth: BoolArray, resolution: float, counted: BoolArray | None = None
) -> npt.NDArray[np.float64]:
    """Distances of each edge of one outline from the nearest of the other, both ways.

    Parameters
    ----------
    said, truth : (y, x) bool
        Map and label.
    resolution : float
        Pixel size in metres.
    counted : (y, x) bool or None
        Pixels that count; edges beside others are no outline.

    Returns
    -------
    (edge,) float64
        In metres; empty where one of the two has no outline.
    """
    predicted, true = _edges(said, counted), _edges(truth, counted)
    if not (predicted.any() and true.any()):
        return np.empty(0)
    return np.concatenate([_distances(true, resolution)[predicted], _distances(predicted, resolution)[true]])


def boundary(cases: Iterable[Case], threshold: float = 0.5) -> Boundary:
    """Distance between the outlines of all cases."""
    found: list[npt.NDArray[np.float64]] = []
    empty = {(True, True): 0, (False, True): 0, (True, False): 0, (False, False): 0}
    for case in cases:
        said = case.probability > threshold
        has = bool(_edges(said, case.seen).any()), bool(_edges(case.truth, case.seen).any())
        empty[has] += 1
        if all(has):
            found.append(outline_distances(said, case.truth, case.resolution, case.seen))
    distances = np.concatenate(found) if found else np.empty(0)
    some = distances.size > 0
    return Boundary(
        mean=float(distances.mean()) if some else math.nan,
        median=float(np.median(distances)) if some else math.nan,
        percentile_95=float(np.percentile(distances, 95)) if some else math.nan,
        edges=int(distances.size),
        images=empty[True, True],
        none_predicted=empty[False, True],
        none_true=empty[True, False],
        neither=empty[False, False],
    )


def _edges(mask: BoolArray, counted: BoolArray | None) -> BoolArray:
    """Edges between unlike pixels on a lattice of half pixels: pixel centres lie at even rows and columns."""
    known = np.ones_like(mask) if counted is None else counted
    height, width = mask.shape
    edges = np.zeros((2 * height - 1, 2 * width - 1), bool)
    edges[::2, 1::2] = (mask[:, 1:] != mask[:, :-1]) & known[:, 1:] & known[:, :-1]
    edges[1::2, ::2] = (mask[1:] != mask[:-1]) & known[1:] & known[:-1]
    return edges


def _distances(edges: BoolArray, resolution: float) -> npt.NDArray[np.float64]:
    if not edges.any():
        return np.full(edges.shape, np.inf)
    found: npt.NDArray[np.float64] = ndimage.distance_transform_edt(~edges, sampling=resolution / 2)
    return found
