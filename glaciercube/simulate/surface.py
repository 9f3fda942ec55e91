"""The state of the simulated ground at one date: what landscapes hand to the sensors' physics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["LAKE", "LAND", "OCEAN", "BoolArray", "FloatArray", "IntArray", "Surface"]

FloatArray: TypeAlias = npt.NDArray[np.float32]
BoolArray: TypeAlias = npt.NDArray[np.bool_]
IntArray: TypeAlias = npt.NDArray[np.uint8]

LAND, LAKE, OCEAN = 0, 1, 2


@dataclass(frozen=True)
class Surface:
    """State of the ground at one date, on a metric grid, north up.

    Attributes
    ----------
    resolution : float
        Pixel size in metres.
    elevation : (y, x) float32
        Elevation of the present surface in metres: the top of the ice where there is ice, 0 on the ocean.
    ice : (y, x) bool
        Glacier ice of this date, clean or under debris. Seasonal snow is not ice.
    debris : (y, x) float32
        Share of the pixel's ice that lies under rock debris, 0 to 1; 0 off the ice.
    snow : (y, x) float32
        Cover of snow (seasonal snow off the glacier, snow and firn above the snow line on it), 0 to 1.
    water : (y, x) uint8
        0 land, 1 lake, 2 ocean.
    turbidity : (y, x) float32
        Sediment in the water, 0 clear to 1 milky; 0 on land.
    """

    resolution: float
    elevation: FloatArray
    ice: BoolArray
    debris: FloatArray
    snow: FloatArray
    water: IntArray
    turbidity: FloatArray
