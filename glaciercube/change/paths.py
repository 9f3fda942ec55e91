"""Paths through a raster: between two pixels at the least cost, and along a shape from one of its ends to the other."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import dijkstra

__all__ = ["cheapest_path", "crossing_path", "longest_path", "path_length"]

Path = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
# Half of a pixel's eight neighbours: rows down, columns right.
_STEPS = ((0, 1), (1, 0), (1, 1), (1, -1))


def cheapest_path(
    mask: BoolArray, cost: npt.NDArray[np.floating], start: tuple[int, int], end: tuple[int, int]
) -> Path:
    """Path of the least cost between two pixels, through eight neighbours.

    Parameters
    ----------
    mask : (y, x) bool
        Pixels that may be crossed.
    cost : (y, x) floating
        Above 0, per pixel of way; a step costs the mean of its ends times its length.
    start, end : (int, int)
        Row and column, in the mask.

    Returns
    -------
    (point, 2) int64
        Rows and columns from the start to the end; empty if there is no way.
    """
    graph, places = _graph(mask, cost)
    number = _numbers(mask)
    cost_to, before = dijkstra(graph, directed=False, indices=number[start], return_predecessors=True)
    if not np.isfinite(cost_to[number[end]]):
        return np.zeros((0, 2), np.int64)
    return _followed(places, before, int(number[end]))


def crossing_path(cost: npt.NDArray[np.floating], first: BoolArray, second: BoolArray) -> Path:
    """Path of the least cost from any pixel of one side to any of the other, through eight neighbours.

    Parameters
    ----------
    cost : (y, x) floating
        As `cheapest_path`.
    first, second : (y, x) bool
        The two sides, neither empty.

    Returns
    -------
    (point, 2) int64
        Rows and columns from the first side to the second.
    """
    graph, places = _graph(np.ones(cost.shape, bool), cost)
    cost_to, before, _ = dijkstra(
        graph, directed=False, indices=np.flatnonzero(first), return_predecessors=True, min_only=True
    )
    ends = np.flatnonzero(second)
    return _followed(places, before, int(ends[cost_to[ends].argmin()]))


def longest_path(mask: BoolArray, cost: npt.NDArray[np.floating]) -> Path:
    """The cheapest path between the two ends of a connected shape.

    The ends are what lies farthest from what lies farthest from any pixel, along the shape: exact for shapes without
    loops (Bulterman et al. 2002, doi:10.1016/S0020-0190(01)00264-5), and close for thin ones.

    Parameters
    ----------
    mask : (y, x) bool
        The shape, connected through eight neighbours; of several parts, the one of the first pixel.
    cost : (y, x) floating
        As `cheapest_path`.

    Returns
    -------
    (point, 2) int64
        Rows and columns; empty for an empty shape.
    """
    if not mask.any():
        return np.zeros((0, 2), np.int64)
    graph, places = _graph(mask, np.ones(mask.shape))
    first = _farthest(graph, 0)
    last = _farthest(graph, first)
    start, end = (tuple(map(int, places[k])) for k in (first, last))
    return cheapest_path(mask, cost, (start[0], start[1]), (end[0], end[1]))


def path_length(path: npt.NDArray[np.floating] | Path) -> float:
    """Length of a path in pixels."""
    return float(np.hypot(*np.diff(np.asarray(path, np.float64), axis=0).T).sum()) if len(path) > 1 else 0.0


def _farthest(graph: csr_array, place: int) -> int:
    distance = dijkstra(graph, directed=False, indices=np.array(place))
    return int(np.where(np.isfinite(distance), distance, -1.0).argmax())


def _followed(places: Path, before: npt.NDArray[np.integer], end: int) -> Path:
    found = []
    while end >= 0:
        found.append(places[end])
        end = int(before[end])
    return np.array(found[::-1])


def _numbers(mask: BoolArray) -> npt.NDArray[np.int64]:
    number = np.full(mask.shape, -1, np.int64)
    number[mask] = np.arange(np.count_nonzero(mask))
    return number


def _graph(mask: BoolArray, cost: npt.NDArray[np.floating]) -> tuple[csr_array, Path]:
    """Costs of the steps between a mask's pixels, and their rows and columns."""
    number = _numbers(mask)
    height, width = mask.shape
    starts, ends, prices = [], [], []
    for down, right in _STEPS:
        here = (slice(0, height - down), slice(max(0, -right), width - max(0, right)))
        there = (slice(down, height), slice(max(0, right), width + min(0, right)))
        both = mask[here] & mask[there]
        starts.append(number[here][both])
        ends.append(number[there][both])
        prices.append((cost[here][both] + cost[there][both]) / 2.0 * np.hypot(down, right))
    size = int(np.count_nonzero(mask))
    entries = (np.concatenate(prices), (np.concatenate(starts), np.concatenate(ends)))
    return csr_array(coo_array(entries, shape=(size, size))), np.argwhere(mask)
