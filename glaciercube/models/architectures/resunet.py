"""The residual U-Net that GlaViTU refines with and ICEmapper decodes with."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from glaciercube.models.architectures.layers import ResidualBlock

__all__ = ["ResUNet", "ResUNetDecoder"]


class ResUNetDecoder(nn.Module):
    """From the deepest features up, joined with those of each scale.

    Parameters
    ----------
    widths : sequence of int
        Channels of each scale, the finest first.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        # Enlarged by repeating and convolved 2 by 2: together as many weights as a transposed convolution.
        self.ups = nn.ModuleList(nn.Conv2d(b, a, 2) for a, b in pairwise(widths))
        self.blocks = nn.ModuleList(ResidualBlock(2 * a, a) for a in widths[:-1])

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Return (sample, widths[0], y, x) from features by scale, the finest first."""
        *skips, found = features
        for up, block, skip in zip(reversed(self.ups), reversed(self.blocks), reversed(skips), strict=True):
            large = functional.interpolate(found, scale_factor=2, mode="nearest")
            # One row and column more below and to the right keep the size under a kernel of 2.
            found = block(torch.cat([up(functional.pad(large, (0, 1, 0, 1))), skip], dim=1))
        return found


class ResUNet(nn.Module):
    """Residual U-Net with maximum pooling.

    Parameters
    ----------
    inputs : int
        Channels of the input.
    widths : sequence of int
        Channels of each scale.
    """

    def __init__(self, inputs: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(ResidualBlock(a, b) for a, b in pairwise((inputs, *widths)))
        self.decoder = ResUNetDecoder(widths)

    def forward(self, values: Tensor) -> Tensor:
        """Return (sample, widths[0], y, x)."""
        features = [self.blocks[0](values)]
        for block in list(self.blocks)[1:]:
            features.append(block(functional.max_pool2d(features[-1], 2)))
        found: Tensor = self.decoder(features)
        return found
