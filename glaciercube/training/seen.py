"""What the sensors saw of a window: free of cloud, through it, or not at all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import xarray as xr

from glaciercube.cube.masks import CLEAR_FLAGS, FLAG_OBSERVED
from glaciercube.training.windows import Window

__all__ = ["clear_enough", "seen_weight"]

_OPTICAL = ("blue", "green", "red", "nir", "swir16", "swir22")
_RADAR = ("vv_db", "vh_db", "hh_db", "hv_db", "vv", "vh")


def seen_weight(part: xr.Dataset, hidden: float) -> npt.NDArray[np.float32]:
    """Weight of every pixel of a window by what the sensors saw of it.

    Parameters
    ----------
    part : Dataset (time, y, x)
        Computed.
    hidden : float
        Weight of what only radar saw.

    Returns
    -------
    (time, y, x) float32
        1 where the ground is seen, free of cloud; 0 where nothing is. 1 everywhere where there is neither an optical
        band nor radar.
    """
    shape = tuple(part.sizes[name] for name in ("time", "y", "x"))
    by_radar, by_eye = _finite(part, _RADAR), _finite(part, _OPTICAL)
    if by_eye is None:
        return np.ones(shape, np.float32) if by_radar is None else by_radar.astype(np.float32)
    if "optical_flags" in part:
        flags = part["optical_flags"].transpose("time", "y", "x").to_numpy()
        by_eye &= ((flags & FLAG_OBSERVED) > 0) & ((flags & CLEAR_FLAGS) == 0)
    return np.where(by_eye, 1.0, 0.0 if by_radar is None else hidden * by_radar).astype(np.float32)


def _finite(part: xr.Dataset, names: Sequence[str]) -> npt.NDArray[np.bool_] | None:
    """Where any of some variables is known; None if there are none."""
    layers = [np.isfinite(part[name].transpose("time", "y", "x").to_numpy()) for name in names if name in part]
    return np.logical_or.reduce(layers) if layers else None


def clear_enough(
    cube: xr.Dataset, drawn: Sequence[tuple[Window, tuple[int, ...]]], size: int, share: float
) -> list[tuple[Window, tuple[int, ...]]]:
    """Chips of which an image shows enough, by the cube's masks, which are read date by date.

    Parameters
    ----------
    cube : Dataset (time, y, x)
        With ``optical_flags``, or a band that is NaN where nothing was seen; without either all show enough.
    drawn : sequence of (Window, dates)
        Where the chips lie, and which dates of the cube they have.
    size : int
        Pixels of a side.
    share : float
        Of their pixels, 0 to 1.
    """
    kept = set[int]()
    names = ["optical_flags"] if "optical_flags" in cube else [n for n in (*_OPTICAL, *_RADAR) if n in cube][:1]
    for day in sorted({day for _, days in drawn for day in days}):
        if not names:
            return list(drawn)
        layer = cube[names[0]].isel(time=day).transpose("y", "x").to_numpy()
        flagged = layer.dtype.kind == "u"
        seen = (layer & FLAG_OBSERVED > 0) & (layer & CLEAR_FLAGS == 0) if flagged else np.isfinite(layer)
        # Sums over windows from running sums: the corners of each.
        total = np.pad(seen.cumsum(axis=0, dtype=np.int64).cumsum(axis=1), ((1, 0), (1, 0)))
        for number, (w, days) in enumerate(drawn):
            if day in days and number not in kept:
                low, left = w.row, w.column
                held = total[low + size, left + size] - total[low, left + size]
                held += total[low, left] - total[low + size, left]
                if held >= share * size * size:
                    kept.add(number)
    return [entry for number, entry in enumerate(drawn) if number in kept]
