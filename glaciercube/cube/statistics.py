"""Statistics along time that bear with missing values."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["nan_median"]


def nan_median(values: npt.NDArray[Any], axis: int = -1) -> npt.NDArray[Any]:
    """Median along an axis, ignoring NaN.

    As numpy's, but without its warning where all are NaN, and much faster on short axes.

    Parameters
    ----------
    values : array
        Floating, NaN where missing; no infinities.
    axis : int
        Axis to reduce.

    Returns
    -------
    array
        Same dtype without the axis; NaN where all are NaN.
    """
    # NaN sorts last.
    ordered = np.moveaxis(np.sort(values, axis=axis), axis, -1)
    count = np.isfinite(ordered).sum(axis=-1, keepdims=True)
    low = np.take_along_axis(ordered, np.maximum(count - 1, 0) // 2, axis=-1)
    high = np.take_along_axis(ordered, np.minimum(count // 2, ordered.shape[-1] - 1), axis=-1)
    middle = np.where(count > 0, (low + high) / 2, np.nan)[..., 0]
    return middle.astype(values.dtype)
