"""A picture of chips: what is seen, what is said of it, and how far that is trusted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from glaciercube.errors import CubeError
from glaciercube.models.chips import UNKNOWN, Chip
from glaciercube.view.canvas import empty_figure, without_ticks

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_chips"]

# Bands by preference, and backscatter or elevation where there is no image.
_SHOWN: Final = (("red", "green", "blue"), ("swir16", "nir", "red"), ("vv_db",), ("hh_db",), ("elevation",))


def plot_chips(chips: Sequence[Chip], *, most: int = 8) -> Figure:
    """Draw some chips at their first date, spread evenly over the sequence: image, label, weight.

    Parameters
    ----------
    chips : sequence of Chip
        Lazy ones are read one by one.
    most : int
        How many at most.

    Returns
    -------
    matplotlib Figure

    Raises
    ------
    CubeError
        If there are no chips.
    """
    if not len(chips):
        raise CubeError("there are no chips to draw", "sample some")
    chosen = sorted({int(i) for i in np.linspace(0, len(chips) - 1, min(most, len(chips)))})
    figure = empty_figure((1.6 * len(chosen) + 0.4, 5.4))
    axes = figure.subplots(3, len(chosen), squeeze=False)
    for column, index in enumerate(chosen):
        chip = chips[index]
        seen, label, weight = axes[:, column]
        seen.imshow(_picture(chip), cmap="gray")
        seen.set_title(f"{chip.place[-14:]}\n{str(chip.time[0])[:10]}", fontsize=7)
        values = np.ma.masked_equal(chip.label[0], UNKNOWN)
        label.imshow(values, vmin=0, vmax=max(2, len(chip.labels) - 1), cmap="viridis", interpolation="nearest")
        weight.imshow(chip.weight[0], vmin=0, vmax=1, cmap="magma", interpolation="nearest")
        for axis in (seen, label, weight):
            without_ticks(axis)
    for axis, text in zip(axes[:, 0], ("image", "label", "weight (black 0, light 1)"), strict=True):
        axis.set_ylabel(text, fontsize=8)
    return figure


def _picture(chip: Chip) -> npt.NDArray[np.floating]:
    """Colours or grey, stretched to the middle 96 %."""
    names = next((names for names in _SHOWN if all(name in chip.variables for name in names)), ())
    layers = [chip.variables[name] for name in names]
    if not layers:
        return np.zeros((*chip.label.shape[1:], 3))
    image = np.stack([layer[0] if layer.ndim == 3 else layer for layer in layers], axis=-1).astype(float)
    if np.isfinite(image).any():
        low, high = np.nanpercentile(image, [2, 98])
        image = np.clip((image - low) / max(high - low, 1e-6), 0, 1)
    shown: npt.NDArray[np.floating] = np.nan_to_num(image, nan=1.0)
    return shown if len(layers) == 3 else shown[..., 0]
