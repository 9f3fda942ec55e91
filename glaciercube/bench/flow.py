"""A trial that brought nothing: snow above mapped ice that feeds it, and mapped ice that nothing feeds.

After GlacierNet2's flow routing and terminus correction (Xie et al. 2022, JAG, doi:10.1016/j.jag.2022.102921), which
serve a network of the ablation zone alone. The models here know snow on ice, and lose by both: see docs/priors.md;
`glaciercube.bench.corrections` measures it.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from glaciercube.errors import CubeError

__all__ = ["Drainage", "drainage", "fed_terminus", "with_accumulation"]

BoolArray: TypeAlias = npt.NDArray[np.bool_]
Indices: TypeAlias = npt.NDArray[np.int64]

_AROUND: Final = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))
# Share of a body's height range, from below, that is its terminus.
_TERMINUS: Final = 0.15


@dataclass(frozen=True)
class Drainage:
    """Which way the ground drains.

    Attributes
    ----------
    shape : (int, int)
        Rows and columns.
    filled : (y, x) float64
        Elevation with hollows filled, metres; NaN where unknown.
    receiver : (y * x) int64
        Flat index of the pixel that each drains to; its own at an outlet, and where elevation is unknown.
    order : (n) int64
        Known pixels, each after the one that it drains to.
    """

    shape: tuple[int, int]
    filled: npt.NDArray[np.float64]
    receiver: Indices
    order: Indices


def drainage(elevation: npt.NDArray[np.floating[Any]]) -> Drainage:
    """Drain a surface to its frame by priority flood, each pixel to one neighbour (Barnes et al. 2014).

    Parameters
    ----------
    elevation : (y, x) floating
        Metres, NaN where unknown; unknown ground drains what lies beside it, like the frame.

    Raises
    ------
    CubeError
        If nothing is known.
    """
    known = np.isfinite(elevation)
    if not known.any():
        raise CubeError("no elevation is known", "give a region that the elevation model covers")
    rows, columns = elevation.shape
    wide = columns + 2
    # A frame of unknown pixels, so that no neighbour is beyond the array.
    height = np.pad(np.where(known, elevation, np.nan).astype(np.float64), 1, constant_values=np.nan).ravel()
    steps = [dy * wide + dx for dy, dx in _AROUND]
    inside = np.pad(known, 1)
    rim = inside & ndimage.binary_dilation(~inside, np.ones((3, 3), np.bool_))
    receiver = np.arange(height.size)
    done = ~inside.ravel()
    starts = np.flatnonzero(rim)
    done[starts] = True
    queue = [(float(height[index]), int(index)) for index in starts]
    heapq.heapify(queue)
    order = []
    while queue:
        level, here = heapq.heappop(queue)
        order.append(here)
        for step in steps:
            there = here + step
            if not done[there]:
                done[there] = True
                receiver[there] = here
                height[there] = max(height[there], level)
                heapq.heappush(queue, (float(height[there]), there))
    _steepest(height, receiver, inside.ravel() & ~rim.ravel(), steps)
    return _without_frame(height, receiver, np.array(order, np.int64), (rows, columns))


def _steepest(height: npt.NDArray[np.float64], receiver: Indices, free: BoolArray, steps: list[int]) -> None:
    """Turn receivers to the steepest way down, where there is one; on flats they stay as the flood came."""
    best = np.zeros(height.size)
    here = np.flatnonzero(free)
    for (dy, dx), step in zip(_AROUND, steps, strict=True):
        fall = (height[here] - height[here + step]) / np.hypot(dy, dx)
        better = fall > best[here]
        receiver[here[better]] = here[better] + step
        best[here[better]] = fall[better]


def _without_frame(
    height: npt.NDArray[np.float64], receiver: Indices, order: Indices, shape: tuple[int, int]
) -> Drainage:
    wide = shape[1] + 2

    def inner(index: Indices) -> Indices:
        return np.asarray((index // wide - 1) * shape[1] + index % wide - 1, np.int64)

    filled = height.reshape(shape[0] + 2, wide)[1:-1, 1:-1]
    kept = inner(receiver.reshape(shape[0] + 2, wide)[1:-1, 1:-1].ravel())
    return Drainage(shape, filled, kept, inner(order))


def with_accumulation(ice: BoolArray, snow: BoolArray, drains: Drainage) -> BoolArray:
    """Mapped ice, and the snow above it that drains into it without leaving snow: (y, x) bool.

    GlacierNet2 (Xie et al. 2022) adds the accumulation zone so: snow hides there what maps the ablation zone.

    Parameters
    ----------
    ice, snow : (y, x) bool
        What is mapped as ice, and what is covered by snow (such as NDSI above 0.7).
    drains : Drainage
        Of the same grid.
    """
    found = ice.ravel().copy()
    white = snow.ravel()
    for here in drains.order.tolist():
        if white[here] and not found[here]:
            there = drains.receiver[here]
            found[here] = there != here and found[there]
    return found.reshape(drains.shape)


def fed_terminus(ice: BoolArray, drains: Drainage) -> BoolArray:
    """Mapped ice without what lies in the lowest 15 % of a body's height and is fed by no ice above: (y, x) bool.

    Parameters
    ----------
    ice : (y, x) bool
        What is mapped as ice.
    drains : Drainage
        Of the same grid.
    """
    bodies, count = ndimage.label(ice, np.ones((3, 3), np.int64))
    if not count:
        return ice.copy()
    height = np.where(np.isfinite(drains.filled), drains.filled, -np.inf)
    numbers = np.arange(1, count + 1)
    lowest, highest = (np.asarray(f(height, bodies, numbers)) for f in (ndimage.minimum, ndimage.maximum))
    limit = np.concatenate([[np.inf], lowest + _TERMINUS * (highest - lowest)])
    fed = ice & (height > limit[bodies])
    # Downhill from pixel to pixel, to any lower neighbour: tongues are convex, and single lines miss their sides.
    for here in np.argsort(-height, axis=None, kind="stable").tolist():
        row, column = divmod(here, drains.shape[1])
        if not ice[row, column] or fed[row, column]:
            continue
        around = (slice(max(row - 1, 0), row + 2), slice(max(column - 1, 0), column + 2))
        fed[row, column] = bool((fed[around] & (height[around] >= height[row, column])).any())
    return fed
