"""Change, read from the probability cube, with its uncertainty."""

from __future__ import annotations

from glaciercube.change.area import AreaOptions, area_series, clear_maps
from glaciercube.change.calibration_file import find_calibration, read_calibrations, write_calibrations
from glaciercube.change.conformal import Calibration, error_scale, raised_level, scene_correlation
from glaciercube.change.correlation import ErrorCorrelation, area_std, fit_correlation
from glaciercube.change.difference import area_change
from glaciercube.change.priors import PriorOptions, prior_report, with_prior
from glaciercube.change.regional import regional_area, regional_change, regional_std
from glaciercube.change.terrain import TerrainWarning, terrain_use

__all__ = [
    "AreaOptions",
    "Calibration",
    "ErrorCorrelation",
    "PriorOptions",
    "TerrainWarning",
    "area_change",
    "area_series",
    "area_std",
    "clear_maps",
    "error_scale",
    "find_calibration",
    "fit_correlation",
    "prior_report",
    "raised_level",
    "read_calibrations",
    "regional_area",
    "regional_change",
    "regional_std",
    "scene_correlation",
    "terrain_use",
    "with_prior",
    "write_calibrations",
]
