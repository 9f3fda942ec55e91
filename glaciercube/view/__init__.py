"""Pictures of cubes, probabilities and change. Needs the extra ``view``."""

from __future__ import annotations

from glaciercube.view.calendar import plot_calendar
from glaciercube.view.chips import plot_chips
from glaciercube.view.companions import plot_companions
from glaciercube.view.figures import plot_area, plot_change, plot_inputs

__all__ = ["plot_area", "plot_calendar", "plot_change", "plot_chips", "plot_companions", "plot_inputs"]
