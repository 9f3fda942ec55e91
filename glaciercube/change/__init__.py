"""Change, read from the probability cube, with its uncertainty."""

from __future__ import annotations

from glaciercube.change.area import AreaOptions, area_series, clear_maps, regional_area
from glaciercube.change.conformal import (
    Calibration,
    error_scale,
    find_calibration,
    read_calibrations,
    write_calibrations,
)

__all__ = [
    "AreaOptions",
    "Calibration",
    "area_series",
    "clear_maps",
    "error_scale",
    "find_calibration",
    "read_calibrations",
    "regional_area",
    "write_calibrations",
]
