"""Scenes onto the grid, and sensors onto one time axis."""
