"""The rows of a probability cube: when each was taken, and which pixels its flags hide."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import xarray as xr

from glaciercube.errors import require
from glaciercube.inference import QUALITY_BITS

__all__ = ["check_flags", "hidden", "middles"]

_Quality = TypeVar("_Quality", npt.NDArray[Any], xr.DataArray)


def check_flags(flags: Iterable[str]) -> None:
    """Refuse flags that `quality` does not have.

    Raises
    ------
    ConfigError
        If there are such; it names them.
    """
    unknown = [name for name in flags if name not in QUALITY_BITS]
    require(not unknown, f"unknown quality flag {unknown}", f"choose among {', '.join(QUALITY_BITS)}")


def hidden(quality: _Quality, flags: Iterable[str]) -> _Quality:
    """Pixels that do not count as seen.

    Parameters
    ----------
    quality : (..., y, x) uint8, array or DataArray
        Of a cube; lazy ones stay lazy.
    flags : iterable of str
        Names of `glaciercube.inference.QUALITY_BITS`; none hide nothing.

    Returns
    -------
    (..., y, x) bool
        As the quality is given: True under any of the flags.
    """
    return (quality & np.uint8(sum(QUALITY_BITS[name] for name in flags))) > 0


def middles(cube: xr.Dataset) -> npt.NDArray[np.datetime64]:
    """Time of each row, (time,) datetime64; of a window (``time_bnds``), its middle."""
    if "time_bnds" not in cube.coords:
        return cube["time"].to_numpy()
    bounds: npt.NDArray[np.datetime64] = cube["time_bnds"].to_numpy()
    return bounds[:, 0] + (bounds[:, 1] - bounds[:, 0]) / 2
