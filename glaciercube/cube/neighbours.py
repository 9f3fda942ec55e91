"""Filters over lazy arrays whose pixels look beyond their block: one task a block."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import dask.array as da
import numpy as np
import numpy.typing as npt
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph

__all__ = ["with_neighbours"]

Array: TypeAlias = npt.NDArray[Any]


def with_neighbours(
    function: Callable[..., Array], data: da.Array, depth: int, *, boundary: float | str, dtype: Any, **known: Any
) -> da.Array:
    """Map a function over the blocks of (y, x), each with `depth` pixels of its neighbours.

    As `dask.array.map_overlap`, which makes ten tasks of a block where this makes one.

    Parameters
    ----------
    function : callable
        Array to array of the same shape; a pixel may depend on those within `depth`.
    data : dask Array (y, x)
        What to filter.
    depth : int
        Pixels.
    boundary : float or "nearest"
        What lies beyond the array: a number, or the nearest pixel's value.
    dtype
        Of the result.
    **known
        Further arguments of `function`.
    """
    if min(data.shape) <= depth:
        # Fewer pixels than a neighbour should give: the grid is one block.
        data = data.rechunk(-1)
    elif min(min(sizes) for sizes in data.chunks) < depth:
        data = data.rechunk(tuple(_at_least(sizes, depth) for sizes in data.chunks))
    rows, columns = data.numblocks
    apply = functools.partial(_apply, function, depth=depth, boundary=boundary, known=known)
    name = f"{function.__name__}-{tokenize(data.name, function.__name__, depth, boundary, known)}"
    graph: dict[Any, Any] = {
        (name, i, j): (apply, [[_key(data, i + k, j + m) for m in (-1, 0, 1)] for k in (-1, 0, 1)])
        for i in range(rows)
        for j in range(columns)
    }
    sources: Any = [data]
    layered = HighLevelGraph.from_collections(name, graph, dependencies=sources)
    return da.Array(layered, name, data.chunks, dtype=dtype, meta=np.empty((0, 0), dtype=dtype))


def _key(data: da.Array, row: int, column: int) -> tuple[str, int, int] | None:
    inside = 0 <= row < data.numblocks[0] and 0 <= column < data.numblocks[1]
    return (data.name, row, column) if inside else None


def _at_least(sizes: Sequence[int], least: int) -> tuple[int, ...]:
    """Blocks joined until each is long enough; what is left over joins the last."""
    joined: list[int] = []
    rest = 0
    for size in sizes:
        rest += size
        if rest >= least:
            joined.append(rest)
            rest = 0
    joined[-1] += rest
    return tuple(joined)


def _apply(
    function: Callable[..., Array],
    blocks: list[list[Array | None]],
    *,
    depth: int,
    boundary: float | str,
    known: dict[str, Any],
) -> Array:
    middle = blocks[1][1]
    if middle is None or not middle.size:
        return np.empty((0, 0))
    pieces = (slice(-depth, None), slice(None), slice(None, depth))
    found = [
        [block[pieces[k], pieces[m]] for m, block in enumerate(line) if block is not None]
        for k, line in enumerate(blocks)
    ]
    whole = np.concatenate([np.concatenate(line, axis=1) for line in found if line], axis=0)
    missing = [(blocks[0][1], blocks[2][1]), (blocks[1][0], blocks[1][2])]
    width = [tuple(depth if block is None else 0 for block in sides) for sides in missing]
    if boundary == "nearest":
        whole = np.pad(whole, width, mode="edge")
    else:
        whole = np.pad(whole, width, constant_values=boundary)
    return function(whole, **known)[depth:-depth, depth:-depth]
