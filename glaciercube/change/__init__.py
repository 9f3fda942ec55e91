"""Change, read from the probability cube, with its uncertainty."""

from __future__ import annotations

from glaciercube.change.area import AreaOptions, area_series, regional_area
from glaciercube.change.conformal import Calibration, find_calibration, read_calibrations, write_calibrations

__all__ = [
    "AreaOptions",
    "Calibration",
    "area_series",
    "find_calibration",
    "read_calibrations",
    "regional_area",
    "write_calibrations",
]
