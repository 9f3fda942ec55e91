"""Speckle and border noise: filters of power on arrays, each pixel's answer from its neighbourhood alone."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

__all__ = ["EDGE_WIDTH", "border_noise", "lee_filter", "local_mean", "mean_of_layers"]

Power = npt.NDArray[np.floating[Any]]

# Pixels: nodata narrower than this in either direction is a hole (radar shadow) and no edge of a swath.
EDGE_WIDTH: Final = 9


def border_noise(power: Power, floor: float, reach: int) -> npt.NDArray[np.bool_]:
    """Pixels of the noise that lines the swath's edge.

    Products of before March 2018, and some since, have pixels near zero rather than nodata along their edges (ESA,
    Masking "No-value" Pixels on GRD Products, MPC-0243, 2015; Stasolla & Neyt 2018, doi:10.3390/s18103454). Such a
    pixel is at or below the floor and joined to nodata by pixels that are, over at most `reach` steps. Dark water,
    ice and radar shadow elsewhere are not touched; where they meet the swath's edge they cannot be told apart, as
    MPC-0243 says of its own method, and at most `reach` pixels of them are lost. One more pixel on the inner side
    goes too, since resampling has mixed it with noise.

    Parameters
    ----------
    power : array (..., y, x)
        Linear power of a co-polarised band, NaN where there is no data.
    floor : float
        Linear power.
    reach : int
        Pixels.

    Returns
    -------
    array (..., y, x)
        bool; false where there is no data.
    """
    found = np.zeros(power.shape, dtype=bool)
    for index in np.ndindex(power.shape[:-2]):
        layer = power[index]
        observed = np.isfinite(layer)
        dark = observed & (layer <= floor)
        if observed.all() or not dark.any():
            continue
        edge = ndimage.maximum_filter(ndimage.minimum_filter((~observed).view(np.uint8), EDGE_WIDTH), EDGE_WIDTH) > 0
        if not edge.any():
            continue
        around = np.ones((3, 3), dtype=bool)
        joined = ndimage.binary_dilation(edge, around, iterations=reach, mask=dark) & dark
        found[index] = ndimage.binary_dilation(joined, around) & observed
    return found


def local_mean(power: Power, window: int) -> Power:
    """Mean of the pixels with data in a square window; NaN stays NaN.

    Parameters
    ----------
    power : array (..., y, x)
        Linear power, NaN where there is no data.
    window : int
        Side in pixels, odd.

    Returns
    -------
    array (..., y, x)
        Same dtype.
    """
    observed = np.isfinite(power)
    count = _sums(observed.astype(np.float64), window)
    total = _sums(np.where(observed, power, 0.0), window)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(observed, total / count, np.nan).astype(power.dtype)


def lee_filter(power: Power, window: int, looks: float) -> Power:
    """Lee's filter: the local mean where the scene is even, the pixel itself where it is not; NaN stays NaN.

    ``mean + w (pixel - mean)`` with ``w = 1 - Cu2 / Ci2``, not below 0, where ``Ci2`` is the variance over the squared
    mean in the window and ``Cu2 = 1 / looks`` what speckle alone makes of it (Lee 1980,
    doi:10.1109/TPAMI.1980.4766994; in this form Lopes et al. 1990, doi:10.1109/36.62623).

    Parameters
    ----------
    power : array (..., y, x)
        Linear power, NaN where there is no data.
    window : int
        Side in pixels, odd.
    looks : float
        Equivalent number of looks of `power`.

    Returns
    -------
    array (..., y, x)
        Same dtype.
    """
    observed = np.isfinite(power)
    filled = np.where(observed, power, 0.0).astype(np.float64)
    count = np.maximum(_sums(observed.astype(np.float64), window), 1.0)
    mean = _sums(filled, window) / count
    variance = np.maximum(_sums(filled**2, window) / count - mean**2, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        weight = np.clip(1.0 - mean**2 / (looks * variance), 0.0, 1.0)
    # Without variance the mean is the pixel.
    weight = np.where(variance > 0, weight, 0.0)
    return np.where(observed, mean + weight * (filled - mean), np.nan).astype(power.dtype)


def mean_of_layers(*layers: Power) -> Power:
    """Mean of several layers where they have data; NaN where the first has none.

    Parameters
    ----------
    *layers : arrays of one shape
        Linear power, NaN where there is no data; at least one.
    """
    total = np.zeros(layers[0].shape, dtype=np.float64)
    count = np.zeros(layers[0].shape, dtype=np.int32)
    for layer in layers:
        observed = np.isfinite(layer)
        total += np.where(observed, layer, 0.0)
        count += observed
    mean = total / np.maximum(count, 1)
    return np.where(np.isfinite(layers[0]), mean, np.nan).astype(layers[0].dtype)


def _sums(values: npt.NDArray[Any], window: int) -> npt.NDArray[np.float64]:
    # Not a running sum, whose rounding would depend on where the block begins.
    weights = np.ones(window)
    rows = ndimage.correlate1d(values, weights, axis=-2, mode="constant", output=np.float64)
    return np.asarray(ndimage.correlate1d(rows, weights, axis=-1, mode="constant"), dtype=np.float64)
