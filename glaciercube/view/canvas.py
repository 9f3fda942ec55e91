"""What every picture is drawn on: a figure without pyplot, and axes that are maps."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import xarray as xr

from glaciercube.errors import CubeError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["empty_figure", "extent_of", "without_ticks"]


def empty_figure(size: tuple[float, float]) -> Figure:
    """A figure that needs no display and shows itself in Jupyter.

    Parameters
    ----------
    size : (float, float)
        Width and height in inches.

    Raises
    ------
    CubeError
        If matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise CubeError("pictures need matplotlib", "pip install 'glaciercube[view]'") from error

    class Picture(Figure):
        """A figure without pyplot (no global state, no display needed) that still shows itself in Jupyter."""

        def _repr_png_(self) -> bytes:
            buffer = io.BytesIO()
            self.savefig(buffer, format="png")
            return buffer.getvalue()

    return Picture(figsize=size, layout="constrained", dpi=110)


def extent_of(layer: xr.Dataset | xr.DataArray) -> tuple[float, float, float, float]:
    """Outer edges of the pixels of a layer with coordinates x and y: left, right, bottom and top, in their unit."""
    x, y = layer["x"].to_numpy(), layer["y"].to_numpy()
    dx, dy = (x[1] - x[0]) / 2, (y[1] - y[0]) / 2
    return (x[0] - dx, x[-1] + dx, y[-1] + dy, y[0] - dy)


def without_ticks(axes: Axes) -> None:
    """Take the ticks and labels from the axes of a map."""
    axes.set(xticks=[], yticks=[], xlabel="", ylabel="")
