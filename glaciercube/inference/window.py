"""The pixels that a block must see: its own, its halo, and what lies beyond the grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Span", "Window", "block_window"]


@dataclass(frozen=True)
class Span:
    """One axis of a window, in pixels of the grid.

    Attributes
    ----------
    start, stop : int
        What is read: the part of core and halo that lies on the grid.
    before, after : int
        Missing pixels to add where the halo leaves the grid.
    trim : int
        Pixels to drop at the front of the result, so that it begins at the core.
    size : int
        Pixels of the core.
    """

    start: int
    stop: int
    before: int
    after: int
    trim: int
    size: int

    @property
    def read(self) -> slice:
        """What is read, as a slice of the grid."""
        return slice(self.start, self.stop)

    @property
    def core(self) -> slice:
        """The core, as a slice of the padded block."""
        return slice(self.trim, self.trim + self.size)


@dataclass(frozen=True)
class Window:
    """A block's window on both axes."""

    y: Span
    x: Span

    def pad(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Add NaN where the halo leaves the grid; last two axes are y, x."""
        edges = ((self.y.before, self.y.after), (self.x.before, self.x.after))
        if not any(map(any, edges)):
            return values
        return np.pad(values, ((0, 0),) * (values.ndim - 2) + edges, constant_values=np.nan)


def block_window(y: slice, x: slice, shape: tuple[int, int], *, halo: int, stride: int) -> Window:
    """Grow a block by the halo, to multiples of the stride counted from the grid's origin.

    A network that halves its resolution gives a pixel another value when its cells are shifted: with every block on
    one lattice of strides, a pixel has one value whichever block it is computed in. Beyond the grid all is missing.

    Parameters
    ----------
    y, x : slice
        The block's core, in pixels of the grid.
    shape : (int, int)
        Height and width of the grid.
    halo : int
        Pixels of context on each side (the contract's receptive field).
    stride : int
        The contract's stride.
    """
    return Window(_span(y, shape[0], halo, stride), _span(x, shape[1], halo, stride))


def _span(core: slice, length: int, halo: int, stride: int) -> Span:
    first = (core.start - halo) // stride * stride
    last = -(-(core.stop + halo) // stride) * stride
    start, stop = max(first, 0), min(last, length)
    return Span(start, stop, start - first, last - stop, core.start - first, core.stop - core.start)
