"""Scenes onto the grid, and sensors onto one time axis."""

from __future__ import annotations

from glaciercube.cube.compose import compose
from glaciercube.cube.coverage import coverage
from glaciercube.cube.load import LoadOptions, load
from glaciercube.cube.masks import MaskOptions, looks_like_ice
from glaciercube.cube.offset import settle_offsets
from glaciercube.cube.schedule import ComposeOptions, Row, schedule
from glaciercube.cube.statistics import nan_median
from glaciercube.reading.retry import ReadOptions

__all__ = [
    "ComposeOptions",
    "LoadOptions",
    "MaskOptions",
    "ReadOptions",
    "Row",
    "compose",
    "coverage",
    "load",
    "looks_like_ice",
    "nan_median",
    "schedule",
    "settle_offsets",
]
