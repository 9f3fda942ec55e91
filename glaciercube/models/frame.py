"""The windows of one block: where each is cut, and how their results become one map."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from glaciercube.errors import ModelError
from glaciercube.models.contract import Contract
from glaciercube.models.prepare import Masked
from glaciercube.models.reach import Windows

__all__ = ["Blend", "Frame", "frame_block"]


@dataclass(frozen=True)
class Frame:
    """A block with what is added around it, and the windows in it.

    Attributes
    ----------
    size : (int, int)
        Height and width of the block as it came.
    before, after : (int, int)
        Missing pixels that are added above and to the left, below and to the right.
    parts : tuple of (slice, slice)
        Rows and columns of each window, in a fixed order; the whole block where the receptive field is finite.
    """

    size: tuple[int, int]
    before: tuple[int, int]
    after: tuple[int, int]
    parts: tuple[tuple[slice, slice], ...]

    def pad(self, values: Tensor) -> Tensor:
        """Add missing values around (…, y, x)."""
        edges = (self.before[1], self.after[1], self.before[0], self.after[0])
        return nn.functional.pad(values, edges, value=float("nan")) if any(edges) else values

    def crop(self, values: Tensor) -> Tensor:
        """Take them off again."""
        top, left = self.before
        return values[..., top : top + self.size[0], left : left + self.size[1]]

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width with what was added."""
        return self.before[0] + self.size[0] + self.after[0], self.before[1] + self.size[1] + self.after[1]

    @staticmethod
    def cut(masked: Mapping[str, Masked], part: tuple[slice, slice]) -> dict[str, Masked]:
        """One window of the inputs."""
        y, x = part
        # Contiguous: sums depend on the strides in their last bit, and those on the block that a window is cut from.
        return {
            name: Masked(entry.values[..., y, x].contiguous(), entry.valid[..., y, x].contiguous())
            for name, entry in masked.items()
        }


def frame_block(contract: Contract, size: tuple[int, int], *, framed: bool) -> Frame:
    """Lay the windows of a contract over a block.

    Parameters
    ----------
    contract : Contract
        Whose.
    size : (int, int)
        Height and width of the block.
    framed : bool
        Whether the block begins and ends where `glaciercube.inference.block_window` lets it, so that it holds all
        windows of its core. If not, it is a grid of its own: windows hang over its edges.

    Raises
    ------
    ModelError
        If it is said to be framed and holds no whole number of windows.
    """
    windows = contract.windows
    if windows is None:
        grow = (-size[0] % contract.stride, -size[1] % contract.stride)
        whole = (slice(0, size[0] + grow[0]), slice(0, size[1] + grow[1]))
        return Frame(size, (0, 0), grow, (whole,))
    before = after = (0, 0)
    if not framed:
        hang = -(-windows.halo // windows.step) * windows.step
        before = (hang, hang)
        after = (_beyond(size[0], windows), _beyond(size[1], windows))
    height, width = (b + s + a for b, s, a in zip(before, size, after, strict=True))
    if any(length < windows.size or (length - windows.size) % windows.step for length in (height, width)):
        raise ModelError(
            f"a block of {height} by {width} pixels holds no whole number of windows of {windows.size} pixels, every "
            f"{windows.step}",
            "cut it as glaciercube.inference.block_window says",
        )
    parts = tuple(
        (slice(top, top + windows.size), slice(left, left + windows.size))
        for top in range(0, height - windows.size + 1, windows.step)
        for left in range(0, width - windows.size + 1, windows.step)
    )
    return Frame(size, before, after, parts)


def _beyond(length: int, windows: Windows) -> int:
    return -(-(length + windows.halo) // windows.step) * windows.step - length


class Blend:
    """Weighted mean of windows.

    The mean is moved towards each new value by its share of the weight so far: where all windows agree, their value
    comes back to the last bit. Windows come in one order in every block, so that a pixel has one value.

    Parameters
    ----------
    windows : Windows
        Their weights.
    shape : tuple of int
        (time, y, x) or (time, class, y, x) of the map.
    """

    def __init__(self, windows: Windows, shape: tuple[int, ...]) -> None:
        self.windows, self._shape = windows, shape
        self._mean: Tensor | None = None
        self._weight: Tensor | None = None

    def add(self, part: tuple[slice, slice], values: Tensor) -> None:
        """Add one window, of which NaN weighs nothing."""
        if self._mean is None or self._weight is None:
            self._mean, self._weight = values.new_zeros(self._shape), values.new_zeros(self._shape)
        m = self.windows.margin
        y, x = (slice(axis.start + m, axis.stop - m) for axis in part)
        inner = values[..., m : values.shape[-2] - m, m : values.shape[-1] - m]
        weight = torch.where(inner.isnan(), torch.zeros_like(inner), _gauss(self.windows).to(inner))
        total = self._weight[..., y, x] + weight
        share = torch.where(weight > 0, weight / total, torch.zeros_like(weight))
        mean = self._mean[..., y, x]
        self._mean[..., y, x] = mean + (inner.nan_to_num() - mean) * share
        self._weight[..., y, x] = total

    def result(self, like: Tensor) -> Tensor:
        """The map, NaN where no window said anything; `like` gives type and device of an empty one."""
        if self._mean is None or self._weight is None:
            return like.new_full(self._shape, torch.nan)
        missing = torch.full((), torch.nan, dtype=self._mean.dtype, device=self._mean.device)
        return torch.where(self._weight > 0, self._mean, missing)


def _gauss(windows: Windows) -> Tensor:
    """Weights (y, x) of one window without its margin; never 0, so that every pixel that is seen has a value."""
    side = windows.size - 2 * windows.margin
    r = (torch.arange(side, dtype=torch.float64) - (side - 1) / 2) / (side / 2)
    line = torch.exp(-(r**2) / (2 * windows.sigma**2))
    weights: Tensor = (line[:, None] * line[None]).clamp(min=1e-6).float()
    return weights
