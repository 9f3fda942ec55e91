"""Scenes onto the grid, and sensors onto one time axis."""

from __future__ import annotations

from glaciercube.cube.compose import compose
from glaciercube.cube.load import LoadOptions, load
from glaciercube.cube.schedule import ComposeOptions, Row, schedule
from glaciercube.cube.statistics import nan_median

__all__ = ["ComposeOptions", "LoadOptions", "Row", "compose", "load", "nan_median", "schedule"]
