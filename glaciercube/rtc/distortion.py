"""Layover and radar shadow of a surface, from how its points are seen."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

__all__ = ["layover_and_shadow"]

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


def layover_and_shadow(seconds: Array, distance: Array, off_nadir: Array, spacing: float) -> tuple[Mask, Mask]:
    """Layover and shadow, cast by other places too.

    Along the ground away from the satellite, at one zero-Doppler time, the off-nadir angle grows unless nearer ground
    hides a point (shadow), and the distance grows unless other ground has the same one (layover), on both sides of
    where it turns (Kropatsch & Strobl 1990, doi:10.1109/36.45752). What lies outside the array casts none.

    Parameters
    ----------
    seconds : array (y, x)
        Zero-Doppler time.
    distance : array (y, x)
        Slant range in metres.
    off_nadir : array (y, x)
        Angle at the satellite between its nadir and the point, radians.
    spacing : float
        Pixel size in metres.

    Returns
    -------
    layover, shadow : array (y, x)
        bool.
    """
    # The way of one zero-Doppler time over the grid is straight to a few metres in tens of kilometres.
    down, right = (float(np.median(part)) for part in np.gradient(seconds))
    along = np.array([right, -down]) / np.hypot(down, right)
    middle = np.array(distance.shape) / 2
    if (np.array([np.median(part) for part in np.gradient(off_nadir)]) @ along) < 0:
        along = -along
    side = int(np.ceil(np.hypot(*distance.shape))) + 2
    # Rows of the turned array are lines of one time, columns go away from the satellite.
    turn = np.array([[along[1], along[0]], [-along[0], along[1]]])
    offset = middle - turn @ np.full(2, side / 2)

    def turned(values: Array) -> Array:
        out = ndimage.affine_transform(values, turn, offset, (side, side), order=1, mode="constant", cval=np.nan)
        return np.asarray(out, dtype=np.float64)

    shown, far = turned(off_nadir), turned(distance)
    shadow = shown < _running_maximum(shown) - 1e-9
    # A thousandth of a pixel: even ground must not lie over itself by rounding.
    before = far < _running_maximum(far) - spacing * 1e-3
    behind = far > -_running_maximum(-far[:, ::-1])[:, ::-1] + spacing * 1e-3
    back = np.linalg.inv(turn)
    masks = []
    for mask in (before | behind, shadow):
        turned_back = ndimage.affine_transform(
            mask.astype(np.float64), back, -back @ offset, distance.shape, order=1, mode="constant", cval=0.0
        )
        masks.append(turned_back >= 0.5)
    return masks[0] & ~masks[1], masks[1]


def _running_maximum(values: Array) -> Array:
    return np.maximum.accumulate(np.where(np.isnan(values), -np.inf, values), axis=1)
