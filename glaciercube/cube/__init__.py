"""Scenes onto the grid, and sensors onto one time axis."""

from __future__ import annotations

from glaciercube.cube.compose import ComposeOptions, compose
from glaciercube.cube.load import LoadOptions, load

__all__ = ["ComposeOptions", "LoadOptions", "compose", "load"]
