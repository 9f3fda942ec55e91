"""Elevation between native pixels: cubic along and across rows whose spacing may change with latitude."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["MEASURED", "SEA_LEVEL", "VOID", "Rows", "Window", "interpolate"]

FloatArray: TypeAlias = npt.NDArray[np.float64]
IntArray: TypeAlias = npt.NDArray[np.int64]

# Bits of `dem_flags`.
MEASURED: Final = 1
SEA_LEVEL: Final = 2
VOID: Final = 4


@dataclass(frozen=True)
class Rows:
    """How latitudes are numbered: row ``r`` has its centre at ``top - (r + 0.5) * step`` degrees.

    Attributes
    ----------
    top : float
        Latitude of the upper edge of row 0.
    step : float
        Degrees from row to row.
    count : int
        Rows from the north pole, where row 0 lies, to the last before the south pole; beyond them come the rows of the
        opposite meridian. 0 where rows do not reach from pole to pole.
    """

    top: float
    step: float
    count: int = 0

    def number(self, latitude: Any) -> Any:
        """Row of a latitude, with its fraction."""
        return (self.top - latitude) / self.step - 0.5


@dataclass(frozen=True, eq=False)
class Window:
    """Native pixels around a block, of one spacing.

    Attributes
    ----------
    row, column : int
        Numbers of its first row and column.
    left, step : float
        Degrees: column ``c`` has its centre at longitude ``left + (c + 0.5) * step``.
    turn : int
        Columns around the Earth, which is where their numbers start again; 0 where they do not.
    values : (y, x) float32
        Metres, NaN where unknown.
    kinds : (y, x) uint8
        What each is: `MEASURED`, `SEA_LEVEL` or `VOID`.
    """

    row: int
    column: int
    left: float
    step: float
    turn: int
    values: npt.NDArray[np.float32]
    kinds: npt.NDArray[np.uint8]


def interpolate(
    windows: Sequence[Window], rows: Rows, longitude: FloatArray, latitude: FloatArray
) -> tuple[FloatArray, npt.NDArray[np.uint8]]:
    """Elevation at points, by cubic convolution (Keys 1981, IEEE Trans. ASSP 29:1153, a = -0.5, as GDAL's).

    Each of the four rows about a point is interpolated along its own spacing, then the four across. The surface has
    therefore no seam where tiles of different spacing meet, and a point's value does not depend on who asks.

    Parameters
    ----------
    windows : sequence of Window
        Native pixels; together they hold those about every point.
    rows : Rows
        Numbers of their rows.
    longitude, latitude : (n,) float64
        Degrees.

    Returns
    -------
    elevation : (n,) float64
        Metres. Where some of the 16 pixels are unknown, bilinear among those of the nearest four that are known; NaN
        where the nearest is not.
    kind : (n,) uint8
        Of the nearest pixel.
    """
    position = rows.number(latitude)
    above = np.floor(position).astype(np.int64)
    down = position - above
    cubic, near, weight = (np.zeros(longitude.shape) for _ in range(3))
    kind = np.full(longitude.shape, VOID, dtype=np.uint8)
    centre = np.zeros(longitude.shape, dtype=bool)
    for step, factor in zip(range(-1, 3), _keys(down), strict=True):
        values, kinds, across = _over_poles(windows, rows.count, above + step, longitude)
        cubic += factor * sum(w * v for w, v in zip(_keys(across), values.T, strict=True))
        if step not in (0, 1):
            continue
        share = down if step else 1.0 - down
        nearest = (down >= 0.5) == bool(step)
        for side in (0, 1):
            known = np.isfinite(values[:, 1 + side])
            part = share * (across if side else 1.0 - across) * known
            near += part * np.where(known, values[:, 1 + side], 0.0)
            weight += part
            at = nearest & ((across >= 0.5) == bool(side))
            kind[at], centre[at] = kinds[at, 1 + side], known[at]
    with np.errstate(invalid="ignore", divide="ignore"):
        bilinear = near / weight
    elevation = np.where(np.isfinite(cubic), cubic, bilinear)
    return np.where(centre, elevation, np.nan), kind


def _over_poles(
    windows: Sequence[Window], count: int, row: IntArray, longitude: FloatArray
) -> tuple[FloatArray, npt.NDArray[np.uint8], FloatArray]:
    """As `_along`, where rows may lie beyond a pole or on the south pole, which has no row of its own."""
    north, south = row < 0, row >= count if count else np.zeros(row.shape, dtype=bool)
    if not count or not (north.any() or south.any()):
        return _along(windows, row, longitude)
    beyond = north | (row > count)
    inner = np.where(north, -row, np.where(south, np.minimum(2 * count - row, count - 1), row))
    values, kinds, across = _along(windows, inner, np.where(beyond, _opposite(longitude), longitude))
    pole = row == count
    if pole.any():
        across_pole, _, _ = _along(windows, inner[pole], _opposite(longitude[pole]))
        values[pole] = (values[pole] + across_pole) / 2.0
    return values, kinds, across


def _opposite(longitude: FloatArray) -> FloatArray:
    return np.where(longitude < 0, longitude + 180.0, longitude - 180.0)


def _along(
    windows: Sequence[Window], row: IntArray, longitude: FloatArray
) -> tuple[FloatArray, npt.NDArray[np.uint8], FloatArray]:
    """The four pixels about each point in its row: values and kinds (n, 4), and where the point lies between."""
    values = np.full((*row.shape, 4), np.nan)
    kinds = np.full((*row.shape, 4), VOID, dtype=np.uint8)
    across = np.zeros(row.shape)
    for window in windows:
        height, width = window.values.shape
        inside = np.flatnonzero((row >= window.row) & (row < window.row + height))
        if not inside.size:
            continue
        east = longitude[inside] - window.left
        # Rasters of their own layout may go on beyond 180 degrees; columns that close are counted around instead.
        east = east if window.turn else (east + 90.0) % 360.0 - 90.0
        position = east / window.step - 0.5
        first = np.floor(position).astype(np.int64)
        across[inside] = position - first
        at = row[inside] - window.row
        for side in range(4):
            column = first + (side - 1) - window.column
            column = column % window.turn if window.turn else column
            held = (column >= 0) & (column < width)
            values[inside[held], side] = window.values[at[held], column[held]]
            kinds[inside[held], side] = window.kinds[at[held], column[held]]
    return values, kinds, across


def _keys(t: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Weights of the four pixels about a fraction of a pixel."""
    return (
        ((-0.5 * t + 1.0) * t - 0.5) * t,
        (1.5 * t - 2.5) * t * t + 1.0,
        ((-1.5 * t + 2.0) * t + 0.5) * t,
        (0.5 * t - 0.5) * t * t,
    )
