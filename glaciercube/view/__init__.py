"""Pictures of cubes, probabilities and change. Needs the extra ``view``."""

from __future__ import annotations

from glaciercube.view.figures import plot_area, plot_change, plot_inputs

__all__ = ["plot_area", "plot_change", "plot_inputs"]
